"""Which dimension of which array is split over the `fsdp` axis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from pnet_jax.parallel.mesh import make_mesh
from pnet_jax.parallel.sharding import fsdp_sharding, tree_sharding


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((1280, 1000), P("fsdp")),
        ((960, 1280), P(None, "fsdp")),
        # 21,841 classes are odd, so that the smaller dimension is split.
        ((1280, 21841), P("fsdp")),
        ((21841, 1280), P(None, "fsdp")),
        ((21841,), P()),
        ((21841, 3), P()),
        # Experts, whose largest dimensions come last; a tie goes to the first.
        ((4, 1, 1, 960, 160), P(None, None, None, "fsdp")),
        ((4, 1, 1, 160, 160), P(None, None, None, "fsdp")),
        ((4, 5, 5, 1, 962), P("fsdp")),
        # Below 16,384 elements an array stays whole.
        ((16383,), P()),
        ((128, 127), P()),
        ((128, 128), P("fsdp")),
        ((16384,), P("fsdp")),
        ((), P()),
    ],
)
def test_the_largest_divisible_dimension_is_split(shape: tuple[int, ...], spec: P) -> None:
    mesh = make_mesh("data=2,fsdp=4")
    sharding = fsdp_sharding(mesh, shape)
    assert sharding.mesh == mesh
    assert sharding.spec == spec


def test_without_fsdp_everything_is_whole() -> None:
    for shape in ((1280, 1000), (16384,), ()):
        assert fsdp_sharding(make_mesh("data=8"), shape).spec == P()


def test_a_tree_of_arrays_and_of_shapes() -> None:
    mesh = make_mesh("fsdp=8")
    tree = {"kernel": np.ones((256, 512), np.float32), "bias": np.ones(512, np.float32)}
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
    shardings = tree_sharding(mesh, tree)
    assert shardings == tree_sharding(mesh, shapes)
    assert shardings["kernel"].spec == P(None, "fsdp")
    assert shardings["bias"].spec == P()
    placed = jax.device_put(tree, shardings)
    assert {shard.data.shape for shard in placed["kernel"].addressable_shards} == {(256, 64)}
    assert {shard.data.shape for shard in placed["bias"].addressable_shards} == {(512,)}
    np.testing.assert_array_equal(placed["kernel"], jnp.ones((256, 512)))
