"""The TPU kernels, interpreted: the mixed product and its gradients, whole and ragged blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.ops import pointwise_tpu
from pnet_jax.ops.pointwise_tpu import pointwise


def reference(parts, coefficients, experts):
    return jnp.einsum("pcn,nk,kco->pon", jnp.concatenate(parts, 1), coefficients, experts)


def draw(rng, pixels, channels, samples, features, dtype):
    """The channels in two parts, of which the first is the smaller."""
    shapes = (pixels, channels, samples), (samples, 4), (4, channels, features)
    x, *others = (jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)
    return tuple(jnp.split(x, [channels // 3], axis=1)), *others


def assert_close(actual, expected, tolerance):
    expected = np.asarray(expected, np.float32)
    error = np.abs(np.asarray(actual, np.float32) - expected).max()
    assert error <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize(
    ("pixels", "channels", "samples", "features", "pixels_a_block"),
    [
        (6, 8, 128, 16, 3),  # whole blocks
        (7, 12, 128, 10, 3),  # the last block is ragged, and experts' rows are padded
        (4, 5, 256, 7, 2),  # two blocks of samples
        (3, 4, 72, 6, 3),  # samples that do not fill the lanes
    ],
)
def test_values_and_gradients(
    rng, monkeypatch, pixels, channels, samples, features, pixels_a_block
):
    operands = draw(rng, pixels, channels, samples, features, jnp.float32)
    lanes = min(samples, 128)
    # The gradient's blocks hold x twice; the forward pass takes a few more pixels at a time.
    monkeypatch.setattr(
        pointwise_tpu, "_BLOCK_BYTES", pixels_a_block * (2 * channels + features) * lanes * 4
    )
    y, pull_back = jax.vjp(lambda *operands: pointwise(*operands, True), *operands)
    expected, expected_pull_back = jax.vjp(reference, *operands)
    assert_close(y, expected, 1e-5)
    dy = jnp.asarray(rng.normal(size=y.shape), jnp.float32)
    results, wanted_results = map(jax.tree.leaves, (pull_back(dy), expected_pull_back(dy)))
    assert len(results) == 4
    for gradient, wanted in zip(results, wanted_results, strict=True):
        assert gradient.shape == wanted.shape
        assert_close(gradient, wanted, 1e-5)


def test_bfloat16_sums_in_float32(rng):
    """A sum over pixels and samples keeps what bfloat16 would round away."""
    operands = draw(rng, 5, 8, 128, 16, jnp.bfloat16)
    wide = jax.tree.map(jnp.float32, operands)
    y, pull_back = jax.vjp(lambda *operands: pointwise(*operands, True), *operands)
    expected, expected_pull_back = jax.vjp(reference, *wide)
    assert y.dtype == jnp.bfloat16
    assert_close(y, expected, 0.01)
    results = jax.tree.leaves(pull_back(jnp.ones_like(y)))
    wanted_results = jax.tree.leaves(expected_pull_back(jnp.ones_like(expected)))
    for gradient, wanted in zip(results, wanted_results, strict=True):
        assert gradient.dtype == jnp.bfloat16
        assert_close(gradient, wanted, 0.01)
