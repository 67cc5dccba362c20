"""The depthwise convolution against XLA's own, with one kernel for all samples and one for each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from pnet_jax.ops import depthwise
from pnet_jax.ops.depthwise import depthwise_conv
from pnet_jax.ops.padding import sides

# Each program here runs once: time spent on optimising its machine code would be lost.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SAMPLES, HEIGHT, WIDTH, CHANNELS = 3, 7, 6, 4


def xla_depthwise(x, kernel, strides, padding):
    """XLA's convolution of each sample with its own kernel."""

    def one(image, kernel):
        return lax.conv_general_dilated(
            image[None],
            kernel[:, :, None],
            window_strides=(strides, strides),
            padding=sides(padding),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=image.shape[-1],
        )[0]

    return jax.vmap(one)(x, jnp.broadcast_to(kernel, (x.shape[0], *kernel.shape[1:])))


def windows_in_float64(x, kernel, strides, padding):
    """The definition, as one einsum over every window."""
    x = np.pad(np.float64(x), ((0, 0), *sides(padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[1:3], axis=(1, 2))
    kernel = np.broadcast_to(np.float64(kernel), (x.shape[0], *kernel.shape[1:]))
    return np.einsum("nhwcij,nijc->nhwc", windows[:, ::strides, ::strides], kernel)


def draw(rng, kernel_size, kernels=SAMPLES):
    x = rng.normal(size=(SAMPLES, HEIGHT, WIDTH, CHANNELS))
    kernel = rng.normal(size=(kernels, kernel_size, kernel_size, CHANNELS))
    return jnp.float32(x), jnp.float32(kernel)


@pytest.mark.parametrize("kernels", [1, SAMPLES])
@pytest.mark.parametrize(
    ("kernel_size", "strides", "padding"),
    [(1, 2, 0), (3, 1, 1), (3, 2, 1), (5, 2, 2), (3, 1, 4), (3, 2, ((0, 1), (1, 1)))],
)
def test_values_and_gradients(rng, kernels, kernel_size, strides, padding):
    """Padding up to and beyond the kernel, and strides that leave pixels over, included."""
    x, kernel = draw(rng, kernel_size, kernels)

    @jit
    def both(x, kernel):
        results = []
        for convolve in (depthwise_conv, xla_depthwise):
            y, pull_back = jax.vjp(lambda x, k: convolve(x, k, strides, padding), x, kernel)  # noqa: B023
            results.append((y, pull_back(jnp.sin(y))))
        return results

    (y, gradients), (_, expected_gradients) = both(x, kernel)
    expected = windows_in_float64(x, kernel, strides, padding)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=2e-6)
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        assert gradient.dtype == jnp.float32
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernels", [1, SAMPLES])
def test_second_derivatives(rng, kernels):
    """The gradient of a gradient penalty, which runs through the hand-written gradient."""
    x, kernel = draw(rng, 3, kernels)

    def penalty(convolve, x, kernel):
        gradients = jax.grad(lambda x, k: jnp.sin(convolve(x, k, 2, 1)).sum(), argnums=(0, 1))
        return sum(jnp.sum(gradient**2) for gradient in gradients(x, kernel))

    @jit
    def both(x, kernel):
        return [
            jax.grad(penalty, argnums=(1, 2))(convolve, x, kernel)
            for convolve in (depthwise_conv, xla_depthwise)
        ]

    ours, expected = both(x, kernel)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), ours, expected
    )
    assert np.abs(ours[0]).max() > 1


@pytest.mark.parametrize("kernels", [1, SAMPLES])
def test_accelerator_paths_equal_the_cpu_paths(rng, kernels):
    """Other platforms convolve with a shared kernel, add up whole images, and reduce tap by tap."""
    x, kernel = draw(rng, 3, kernels)
    shape = {"strides": 2, "padding": 1}
    other = depthwise._grouped_convolution if kernels == 1 else depthwise._shift_and_add

    @jit
    def paths(x, kernel):
        y, pull_back = jax.vjp(lambda x, k: depthwise_conv(x, k, 2, 1), x, kernel)
        sums = depthwise._tap_sums(depthwise._pad(x, 1), y, kh=3, kw=3, strides=2)
        return (y, pull_back(y)[1]), (other(x, kernel, **shape), sums)

    (y, gradient), (y_elsewhere, sums) = paths(x, kernel)
    np.testing.assert_allclose(y_elsewhere, y, rtol=1e-5, atol=1e-5)
    sums = sums.reshape(SAMPLES, 3, 3, CHANNELS)
    sums = sums.sum(axis=0, keepdims=True) if kernels == 1 else sums
    np.testing.assert_allclose(sums, gradient, rtol=1e-5, atol=1e-4)


def test_bfloat16_sums_the_kernel_gradient_in_float32(rng):
    """4,096 products of one: bfloat16 would stop counting at 256."""
    x = jnp.ones((1, 64, 64, 2), jnp.bfloat16)
    kernel = jnp.ones((1, 1, 1, 2), jnp.bfloat16)
    dx, dkernel = jax.grad(lambda x, k: depthwise_conv(x, k, 1, 0).sum(), argnums=(0, 1))(x, kernel)
    assert dx.dtype == dkernel.dtype == jnp.bfloat16
    assert (dx == 1).all()
    assert (dkernel == 4096).all()
    assert (depthwise._tap_sums(x, x, kh=1, kw=1, strides=1) == 4096).all()
