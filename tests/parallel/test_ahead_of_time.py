"""What is computed around the compiler; tests/test_aot.py compiles."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from pnet_jax.parallel.ahead_of_time import bytes_on_a_chip, largest_batch
from pnet_jax.parallel.mesh import make_mesh


@pytest.mark.parametrize("start", [1, 16, 64, 100, 4096])
@pytest.mark.parametrize("limit", [0, 15, 16, 17, 100, 1000, 1024])
@pytest.mark.parametrize("constant", [0, 50])
def test_the_largest_batch_that_fits(start, limit, constant):
    """Each image takes 10 bytes, and something takes a few that do not depend on their number."""
    tried = []

    def room(size: int) -> float | None:
        tried.append(size)
        return (constant + 10 * limit) / (constant + 10 * size) if size <= limit else None

    best = largest_batch(room, start=start, step=16)
    assert best % 16 == 0
    assert best <= limit < max(best + 16, 1.06 * best + 16)
    assert len(tried) == len(set(tried)) <= 10


def test_bytes_on_a_chip_count_parts_of_what_is_split():
    mesh = make_mesh("data=2,fsdp=4")
    whole = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
    tree = {
        "a": jax.ShapeDtypeStruct((3, 8), jnp.float32, sharding=split),
        "b": jax.ShapeDtypeStruct((5,), jnp.bfloat16, sharding=whole),
    }
    assert bytes_on_a_chip(tree) == 3 * 2 * 4 + 5 * 2
