"""Depthwise convolution as a sum of shifted inputs, with one kernel for all samples or for each.

XLA's own depthwise convolution is slow on CPU, and a per-sample kernel turns it into a grouped
convolution that is slow everywhere. Written as one multiply-add a tap, the per-sample kernel costs
what the static one does; see `docs/performance.md` for the measurements.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from pnet_jax.ops.padding import Padding, sides


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_conv(x: jax.Array, kernel: jax.Array, strides: int, padding: Padding) -> jax.Array:
    """Convolves every channel with its own kernel.

    Args:
      x: `[N, H, W, C]`.
      kernel: `[N, kh, kw, C]`, one kernel a sample, or `[1, kh, kw, C]`, one for all.
      strides: step between output pixels, the same in both directions.
      padding: zeros added on each of the four sides, or ((top, bottom), (left, right)) zeros.

    Returns:
      `[N, (H + top + bottom - kh) // strides + 1, (W + left + right - kw) // strides + 1, C]`, in
      x's dtype.
    """
    return _forward(x, kernel, strides, padding)


def _forward(x: jax.Array, kernel: jax.Array, strides: int, padding: Padding) -> jax.Array:
    by_row = functools.partial(_shift_and_add_by_row, strides=strides, padding=padding)
    if kernel.shape[0] != 1:
        other = functools.partial(_shift_and_add, strides=strides, padding=padding)
    else:
        # One kernel for all samples: accelerators have a good convolution for it, CPUs do not.
        other = functools.partial(_grouped_convolution, strides=strides, padding=padding)
    return lax.platform_dependent(x, kernel, cpu=by_row, default=other)


def _forward_saving(x: jax.Array, kernel: jax.Array, strides: int, padding: Padding) -> Any:
    return _forward(x, kernel, strides, padding), (x, kernel)


def _backward(
    strides: int, padding: Padding, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    return (
        _input_gradient(dy, kernel, x.shape, strides, padding).astype(x.dtype),
        _kernel_gradient(x, dy, kernel.shape, strides, padding).astype(kernel.dtype),
    )


depthwise_conv.defvjp(_forward_saving, _backward)


def _pad(x: jax.Array, padding: Padding) -> jax.Array:
    return jnp.pad(x, ((0, 0), *sides(padding), (0, 0)))


def _shift_and_add(x: jax.Array, kernel: jax.Array, *, strides: int, padding: Padding) -> jax.Array:
    _, kh, kw, _ = kernel.shape
    x = _pad(x, padding)
    height = (x.shape[1] - kh) // strides + 1
    width = (x.shape[2] - kw) // strides + 1
    rows, columns = (height - 1) * strides + 1, (width - 1) * strides + 1
    terms = [
        x[:, i : i + rows : strides, j : j + columns : strides] * kernel[:, None, None, i, j]
        for i in range(kh)
        for j in range(kw)
    ]
    return functools.reduce(jnp.add, terms)


def _shift_and_add_by_row(
    x: jax.Array, kernel: jax.Array, *, strides: int, padding: Padding
) -> jax.Array:
    """As `_shift_and_add`, in a loop over the kernel's rows.

    XLA's CPU backend would fuse the sum over all taps into each of its readers, and so repeat it
    three to five times in a training step; nothing is fused into or out of a loop.
    """
    _, kh, kw, channels = kernel.shape
    x = _pad(x, padding)
    height = (x.shape[1] - kh) // strides + 1
    width = (x.shape[2] - kw) // strides + 1
    rows, columns = (height - 1) * strides + 1, (width - 1) * strides + 1

    def add_row(i: jax.Array, total: jax.Array) -> jax.Array:
        window = lax.dynamic_slice_in_dim(x, i, rows, axis=1)[:, ::strides]
        taps = lax.dynamic_index_in_dim(kernel, i, axis=1)
        for j in range(kw):
            total += window[:, :, j : j + columns : strides] * taps[:, :, None, j]
        return total

    zero = jnp.zeros((x.shape[0], height, width, channels), x.dtype)
    return lax.fori_loop(0, kh, add_row, zero)


def _grouped_convolution(
    x: jax.Array, kernel: jax.Array, *, strides: int, padding: Padding
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel[0, :, :, None],
        window_strides=(strides, strides),
        padding=sides(padding),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _input_gradient(
    dy: jax.Array, kernel: jax.Array, x_shape: tuple[int, ...], strides: int, padding: Padding
) -> jax.Array:
    """The same operation on the output's gradient, spread out by the strides, with flipped taps."""
    _, kh, kw, _ = kernel.shape
    _, height, width, _ = x_shape
    (top, _), (left, _) = sides(padding)
    spread_height = (dy.shape[1] - 1) * strides + 1
    spread_width = (dy.shape[2] - 1) * strides + 1
    dy = lax.pad(
        dy,
        jnp.zeros((), dy.dtype),
        (
            (0, 0, 0),
            (kh - 1 - top, height + top - spread_height, strides - 1),
            (kw - 1 - left, width + left - spread_width, strides - 1),
            (0, 0, 0),
        ),
    )
    return _forward(dy, kernel[:, ::-1, ::-1], 1, 0)


def _kernel_gradient(
    x: jax.Array, dy: jax.Array, kernel_shape: tuple[int, ...], strides: int, padding: Padding
) -> jax.Array:
    """Per tap, the shifted input times the output's gradient, summed over pixels in float32."""
    samples, kh, kw, channels = kernel_shape
    x = _pad(x, padding)
    taps = functools.partial(_tap_sums, kh=kh, kw=kw, strides=strides)
    rows = functools.partial(_tap_sums_by_row, kh=kh, kw=kw, strides=strides)
    sums = lax.platform_dependent(x, dy, cpu=rows, default=taps)
    if samples == 1:
        sums = sums.sum(axis=0, keepdims=True)
    return sums.reshape(samples, kh, kw, channels)


def _tap_sums(x: jax.Array, dy: jax.Array, *, kh: int, kw: int, strides: int) -> jax.Array:
    """One reduction a tap: `[N, kh * kw, C]`."""
    rows, columns = (dy.shape[1] - 1) * strides + 1, (dy.shape[2] - 1) * strides + 1
    return jnp.stack(
        [
            jnp.sum(
                x[:, i : i + rows : strides, j : j + columns : strides] * dy,
                axis=(1, 2),
                dtype=jnp.float32,
            )
            for i in range(kh)
            for j in range(kw)
        ],
        axis=1,
    )


def _tap_sums_by_row(x: jax.Array, dy: jax.Array, *, kh: int, kw: int, strides: int) -> jax.Array:
    """As `_tap_sums`, a row of pixels at a time.

    XLA's CPU backend does not vectorise a reduction into which a product is fused; adding up whole
    rows element by element, and reducing once at the end, is three to five times faster.
    """
    columns = (dy.shape[2] - 1) * strides + 1
    taps = [(i, j) for i in range(kh) for j in range(kw)]
    zero = jnp.zeros((dy.shape[0], dy.shape[2], dy.shape[3]), jnp.float32)

    def add_row(row: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        window = lax.dynamic_slice_in_dim(x, row * strides, kh, axis=1)
        dy_row = lax.dynamic_index_in_dim(dy, row, axis=1, keepdims=False)
        return tuple(
            total + (window[:, i, j : j + columns : strides] * dy_row).astype(jnp.float32)
            for total, (i, j) in zip(sums, taps, strict=True)
        )

    sums = lax.fori_loop(0, dy.shape[1], add_row, (zero,) * len(taps))
    return jnp.stack(sums, axis=1).sum(axis=2)
