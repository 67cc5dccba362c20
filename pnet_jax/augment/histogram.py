"""Pillow's autocontrast and equalize, to the bit: tables of 256 levels from an image's histogram.

A table look-up of every pixel is slow on a TPU, and so is counting into bins. Both are matrix
products here: a level is its upper and its lower four bits, each of them one of 16. The factors are
whole numbers up to 255, which the matrix units of all devices multiply exactly.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def autocontrast(images: jax.Array) -> jax.Array:
    """Stretches each channel of `[N, H, W, C]` uint8 so that it goes from 0 to 255."""
    return apply_tables(images, autocontrast_tables(histograms(images)))


def equalize(images: jax.Array) -> jax.Array:
    """Makes each channel's levels of `[N, H, W, C]` uint8 about equally frequent."""
    return apply_tables(images, equalize_tables(histograms(images)))


def histograms(images: jax.Array) -> jax.Array:
    """How many pixels have each level: `[N, H, W, C]` uint8 to `[N, C, 256]` int32."""
    levels = _by_channel(images)
    counts = jnp.einsum(
        "ncph,ncpl->nchl",
        _one_of_16(levels >> 4),
        _one_of_16(levels & 15),
    )
    return counts.reshape(*counts.shape[:2], 256).astype(jnp.int32)


def equalize_tables(counts: jax.Array) -> jax.Array:
    """Tables `[N, C, 256]` uint8 of histograms `[N, C, 256]`; of one level alone: no change."""
    highest = 255 - jnp.argmax(counts[..., ::-1] > 0, axis=-1, keepdims=True)
    at_highest = jnp.take_along_axis(counts, highest, axis=-1)
    step = (counts.sum(axis=-1, keepdims=True) - at_highest) // 255
    below = jnp.cumsum(counts, axis=-1) - counts
    table = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, table, jnp.arange(256)).astype(jnp.uint8)


def autocontrast_tables(counts: jax.Array) -> jax.Array:
    """Tables `[N, C, 256]` uint8 of histograms `[N, C, 256]`; of one level alone: no change.

    `255 (level - low) / (high - low)` rounded down, but for the few whole numbers that Pillow's
    double precision ends up just below.
    """
    low = jnp.argmax(counts > 0, axis=-1, keepdims=True)
    high = 255 - jnp.argmax(counts[..., ::-1] > 0, axis=-1, keepdims=True)
    level = jnp.arange(256)
    table = 255 * (level - low) // jnp.maximum(high - low, 1)
    bits = jnp.asarray(_just_below())[low[..., 0], high[..., 0]]
    table -= jnp.unpackbits(bits, axis=-1).astype(table.dtype)
    return jnp.where(high > low, jnp.clip(table, 0, 255), level).astype(jnp.uint8)


def apply_tables(images: jax.Array, tables: jax.Array) -> jax.Array:
    """Replaces each level of `[N, H, W, C]` uint8 by its entry in `[N, C, 256]` uint8."""
    levels = _by_channel(images)
    entries = tables.reshape(*tables.shape[:2], 16, 16).astype(jnp.float32)
    rows = jnp.einsum(
        "ncph,nchl->ncpl",
        _one_of_16(levels >> 4),
        entries,
    )
    looked_up = jnp.where((levels & 15)[..., None] == jnp.arange(16), rows, 0).sum(axis=-1)
    by_pixel = looked_up.astype(jnp.uint8).transpose(0, 2, 1)
    return by_pixel.reshape(images.shape)


def _by_channel(images: jax.Array) -> jax.Array:
    """`[N, H, W, C]` to `[N, C, H W]`."""
    return images.reshape(images.shape[0], -1, images.shape[-1]).transpose(0, 2, 1)


def _one_of_16(values: jax.Array) -> jax.Array:
    return (values[..., None] == jnp.arange(16, dtype=jnp.uint8)).astype(jnp.float32)


@functools.cache
def _just_below() -> np.ndarray:
    """Which levels double precision puts below a whole number, `[low, high, 32]` packed bits.

    A 200th of the levels whose quotient is whole; which of them shows no rule short enough to
    compute on the device.
    """
    low, high = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    span = np.maximum(high - low, 1)
    scale = 255.0 / span
    packed = np.zeros((256, 256, 32), np.uint8)
    levels = np.arange(256)
    for start in range(256):
        in_double = levels * scale[start, :, None] + (-start * scale[start, :, None])
        exact = 255 * (levels - start) // span[start, :, None]
        inside = (levels >= start) & (levels <= high[start, :, None])
        packed[start] = np.packbits(inside & (np.floor(in_double) < exact), axis=-1)
    return packed
