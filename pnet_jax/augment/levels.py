"""Pillow's operations on single levels, to the bit: posterize, solarize, solarize-add, invert.

All are arithmetic on `[N, H, W, C]` uint8 with a parameter of each image, so that a batch in which
every image has an operation of its own costs no look-up; each docstring names the parameter that
changes nothing.
"""

import jax
import jax.numpy as jnp


def posterize(images: jax.Array, bits: jax.Array) -> jax.Array:
    """Keeps the upper `bits` `[N]` int32 of each level; 8 changes nothing and 0 makes black."""
    mask = 0xFF & (0xFF << (8 - jnp.clip(bits, 0, 8)))
    return images & _by_image(mask).astype(jnp.uint8)


def solarize(images: jax.Array, threshold: jax.Array) -> jax.Array:
    """Inverts the levels at and above `threshold` `[N]`; 256 changes nothing."""
    # The threshold may be 256, which is no byte.
    darker = images < _by_image(threshold).astype(jnp.int32)
    return jnp.where(darker, images, 255 - images)


def solarize_add(images: jax.Array, amount: jax.Array) -> jax.Array:
    """Adds `amount` `[N]`, 0 to 128, to the levels below 128; 0 changes nothing."""
    added = jnp.minimum(images + _by_image(amount).astype(jnp.int32), 255).astype(jnp.uint8)
    return jnp.where(images < 128, added, images)


def invert(images: jax.Array) -> jax.Array:
    """255 minus each level: `solarize` with threshold 0."""
    return 255 - images


def _by_image(values: jax.Array) -> jax.Array:
    return values[:, None, None, None]
