"""The dynamic 1x1 convolution is one function on every backend and on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pnet_jax.ops.pointwise import dynamic_pointwise, in_lanes, mixed_matmul


@pytest.fixture
def operands(rng):
    shapes = (128, 3, 2, 5), (128, 4), (4, 5, 6)
    x, *others = (jnp.float32(rng.normal(size=shape)) for shape in shapes)
    return (x[..., :2], x[..., 2:]), *others


def value_and_gradients(function, *operands):
    y, pull_back = jax.vjp(function, *operands)
    return y, *pull_back(jnp.cos(jnp.arange(y.size)).reshape(y.shape))


def definition(parts, coefficients, experts):
    x = jnp.concatenate(parts, axis=-1)
    return jnp.einsum("nhwc,nk,kco->nhwo", x, coefficients, experts)


def assert_equal(results, expected):
    for result, wanted in zip(*map(jax.tree.leaves, (results, expected)), strict=True):
        error = np.abs(np.asarray(result - wanted)).max()
        assert error <= 1e-5 * np.abs(np.asarray(wanted)).max()


def test_equals_the_definition(operands):
    assert_equal(
        value_and_gradients(dynamic_pointwise, *operands),
        value_and_gradients(definition, *operands),
    )


def test_the_tpu_kernels_compute_the_same(operands):
    def interpreted(*operands):
        return in_lanes(*operands, interpret=True)

    assert_equal(
        value_and_gradients(interpreted, *operands), value_and_gradients(mixed_matmul, *operands)
    )


def test_each_device_of_a_mesh_works_on_its_samples(operands):
    """The experts' gradient is summed over the devices, and nothing else is communicated."""
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    split = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    whole = NamedSharding(mesh, PartitionSpec())

    def compute(*operands):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return value_and_gradients(dynamic_pointwise, *operands)

    shardings = (split, split, whole)
    sharded = jax.jit(compute, in_shardings=shardings, out_shardings=(split, *shardings))
    hlo = sharded.lower(*operands).compile().as_text()
    assert hlo.count(" all-reduce(") == 1
    for operation in ("all-gather", "all-to-all", "collective-permute"):
        assert operation not in hlo
    assert_equal(
        sharded(*jax.device_put(operands, (split, split, whole))),
        value_and_gradients(mixed_matmul, *operands),
    )


def test_a_second_derivative_exists(operands):
    x, coefficients, experts = operands

    def slope(function, coefficients):
        first = jax.grad(lambda c: (function(x, c, experts) ** 3).sum())
        return jax.grad(lambda c: (first(c) ** 2).sum())(coefficients)

    assert_equal([slope(dynamic_pointwise, coefficients)], [slope(mixed_matmul, coefficients)])
