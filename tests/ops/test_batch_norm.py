"""Batch normalisation and its hand-written gradient against autodiff of the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.ops.batch_norm import normalize_batch

EPSILON = 1e-3


def two_passes(x, scale, bias):
    """The definition: the mean first, then the mean square of what is left."""
    mean = x.mean(axis=(1, 2, 3), keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=(1, 2, 3), keepdims=True)
    y = (x - mean) / jnp.sqrt(variance + EPSILON) * scale + bias
    return y, mean[:, 0, 0, 0], variance[:, 0, 0, 0]


def one_pass(x, scale, bias):
    return normalize_batch(x, scale, bias, EPSILON)


def draw(rng, groups):
    x = 2 * rng.normal(size=(groups, 4, 5, 3, 6)) + rng.normal(size=(groups, 1, 1, 1, 6))
    return jnp.float32(x), jnp.float32(rng.uniform(0.5, 2, 6)), jnp.float32(rng.normal(size=6))


def gradients(function, *operands):
    """Those of a sum over the normalised output that weighs its entries differently."""

    def weighed(*operands):
        y = function(*operands)[0]
        return jnp.sum(y * jnp.cos(jnp.arange(y.size)).reshape(y.shape))

    return jax.grad(weighed, argnums=(0, 1, 2))(*operands)


@pytest.mark.parametrize("groups", [1, 2])
def test_values_and_gradients(rng, groups):
    operands = draw(rng, groups)

    @jax.jit
    def compute(*operands):
        return [(f(*operands), gradients(f, *operands)) for f in (one_pass, two_passes)]

    (values, ours), (expected_values, expected) = compute(*operands)
    assert values[1].shape == values[2].shape == (groups, 6)
    for value, exact in zip((*values, *ours), (*expected_values, *expected), strict=True):
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, exact, rtol=1e-4, atol=1e-5)


def test_each_group_is_normalised_alone(rng):
    x, scale, bias = draw(rng, 2)
    together = one_pass(x, scale, bias)
    for group in range(2):
        alone = one_pass(x[group : group + 1], scale, bias)
        for both, one in zip(together, alone, strict=True):
            np.testing.assert_allclose(both[group], one[0], rtol=1e-5, atol=1e-6)
    y = one_pass(x, jnp.ones(6), jnp.zeros(6))[0]
    np.testing.assert_allclose(y.mean(axis=(1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(y.std(axis=(1, 2, 3)), 1, rtol=1e-3)


def test_bfloat16_has_statistics_in_float32(rng):
    x, scale, bias = draw(rng, 1)
    narrow = x.astype(jnp.bfloat16)

    @jax.jit
    def compute(narrow):
        wide = narrow.astype(jnp.float32)
        return [
            (f(x, scale, bias), gradients(f, x, scale, bias))
            for f, x in ((one_pass, narrow), (two_passes, wide))
        ]

    (values, ours), (expected_values, expected) = compute(narrow)
    assert [value.dtype for value in values] == [jnp.bfloat16, jnp.float32, jnp.float32]
    assert [gradient.dtype for gradient in ours] == [jnp.bfloat16, jnp.float32, jnp.float32]
    np.testing.assert_allclose(np.float32(values[0]), expected_values[0], rtol=0.01, atol=0.01)
    np.testing.assert_allclose(values[1], expected_values[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values[2], expected_values[2], rtol=1e-5, atol=1e-6)
    for gradient, exact in zip(ours, expected, strict=True):
        np.testing.assert_allclose(np.float32(gradient), exact, rtol=0.02, atol=0.05)


def test_a_constant_channel_is_its_bias():
    """The mean square less the squared mean rounds to -1 here: cut off at 0, nothing is NaN."""
    x = jnp.full((1, 8, 7, 7, 2), 500.7)
    y, mean, variance = one_pass(x, jnp.ones(2), jnp.array([3.0, -1.0]))
    np.testing.assert_allclose(mean, 500.7, rtol=1e-5)
    np.testing.assert_array_equal(variance, 0)
    np.testing.assert_allclose(y, jnp.broadcast_to(jnp.array([3.0, -1.0]), x.shape), atol=0.1)
    for gradient in gradients(one_pass, x, jnp.ones(2), jnp.zeros(2)):
        assert np.isfinite(gradient).all()


def test_statistics_pass_no_gradient(rng):
    """They feed running averages alone, as the docstring says."""
    operands = draw(rng, 1)
    gradient = jax.grad(lambda x: sum(s.sum() for s in one_pass(x, *operands[1:])[1:]))(operands[0])
    assert (gradient == 0).all()
