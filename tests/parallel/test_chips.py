"""The roofline of a chip."""

import pytest

from pnet_jax.errors import UserError
from pnet_jax.parallel.chips import CHIPS, chip_of, roofline


def test_a_step_is_bound_by_the_slowest():
    chip = CHIPS["v5e"]
    work = {"flops": 1.97e12, "hbm_bytes": 81.9e9, "ici_bytes": 4e9, "dcn_bytes": 0.0}
    limits = roofline(chip, **work)
    assert limits.compute_secs == pytest.approx(0.01)
    assert limits.memory_secs == pytest.approx(0.1)
    assert limits.secs == pytest.approx(0.1 + 0.01)
    assert limits.limit == "HBM traffic"
    assert roofline(chip, **work | {"flops": 197e12}).limit == "multiplications"
    assert roofline(chip, **work | {"dcn_bytes": 6.25e9}).secs == pytest.approx(1.11)


def test_chips_are_found_by_their_topology():
    assert chip_of("v6e:8x8").hbm_bytes == 32 << 30
    with pytest.raises(UserError, match="no rates of a v3 chip; there are of v4, v5e, v5p, v6e"):
        chip_of("v3:2x2")
