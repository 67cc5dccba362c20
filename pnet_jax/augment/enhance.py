"""Pillow's enhancements: an image blended with one that lacks colour, contrast, light or edges.

`blend(base, images, factor)` with the base of the enhancement; factor 0 gives the base, 1 the
image, and more goes on beyond it. The bases are exact, and so is the blend but for the last bit of
a product.
"""

import itertools

import jax
import jax.numpy as jnp

# Of ITU-R 601-2 in 65536ths, which Pillow takes for levels of grey.
_RED, _GREEN, _BLUE = 19595, 38470, 7471


def blend(base: jax.Array, images: jax.Array, factor: jax.Array) -> jax.Array:
    """`base + factor * (images - base)`, clipped and rounded down, with `factor` `[N]` float32."""
    start = base.astype(jnp.float32)
    mixed = start + factor[:, None, None, None] * (images.astype(jnp.float32) - start)
    return jnp.clip(mixed, 0, 255).astype(jnp.uint8)


def grayscale(images: jax.Array) -> jax.Array:
    """The base of colour: `[N, H, W, 3]` uint8 RGB to levels of grey `[N, H, W, 1]` uint8."""
    red, green, blue = (images[..., c : c + 1].astype(jnp.int32) for c in range(3))
    gray = _RED * red + _GREEN * green + _BLUE * blue + 0x8000
    return (gray >> 16).astype(jnp.uint8)


def mean_gray(images: jax.Array) -> jax.Array:
    """The base of contrast: the mean level of grey of each image, `[N, 1, 1, 1]` uint8."""
    gray = grayscale(images)
    pixels = gray.shape[1] * gray.shape[2]
    total = gray.sum(axis=(1, 2, 3), keepdims=True, dtype=jnp.int32)
    return ((2 * total + pixels) // (2 * pixels)).astype(jnp.uint8)


def smooth(images: jax.Array) -> jax.Array:
    """The base of sharpness: a 3x3 mean with weight 5 of 13 in the middle; the border stays."""
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    total = 4 * images.astype(jnp.int32)
    for down, right in itertools.product(range(3), repeat=2):
        total += padded[:, down : down + height, right : right + width].astype(jnp.int32)
    # Thirteen is odd: no ties to round.
    rounded = jnp.floor(total.astype(jnp.float32) * (1 / 13) + 0.5).astype(jnp.uint8)
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
    inner = (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
    return jnp.where(inner, rounded, images)
