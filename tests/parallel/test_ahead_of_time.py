"""What is computed around the compiler; tests/test_aot.py compiles."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from pnet_jax.parallel.ahead_of_time import bytes_on_a_chip, largest_batch
from pnet_jax.parallel.mesh import make_mesh


@pytest.mark.parametrize("start", [1, 16, 64, 100, 4096])
@pytest.mark.parametrize("limit", [0, 15, 16, 17, 100, 1000, 1024])
def test_the_largest_batch_that_fits(start, limit):
    tried = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= limit

    assert largest_batch(fits, start=start, step=16) == limit // 16 * 16
    assert len(tried) == len(set(tried)) <= 14


def test_bytes_on_a_chip_count_parts_of_what_is_split():
    mesh = make_mesh("data=2,fsdp=4")
    whole = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
    tree = {
        "a": jax.ShapeDtypeStruct((3, 8), jnp.float32, sharding=split),
        "b": jax.ShapeDtypeStruct((5,), jnp.bfloat16, sharding=whole),
    }
    assert bytes_on_a_chip(tree) == 3 * 2 * 4 + 5 * 2
