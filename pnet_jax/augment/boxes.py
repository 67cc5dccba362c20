"""Rectangles of images as masks."""

import jax
import jax.numpy as jnp


def within(
    height: int, width: int, top: jax.Array, bottom: jax.Array, left: jax.Array, right: jax.Array
) -> jax.Array:
    """The pixels `[N, H, W]` in rows `top` to `bottom` and columns `left` to `right`, ends out.

    The edges are `[N]` and may lie outside the image.
    """
    y, x = jnp.arange(height)[:, None], jnp.arange(width)
    top, bottom, left, right = (edge[:, None, None] for edge in (top, bottom, left, right))
    return (y >= top) & (y < bottom) & (x >= left) & (x < right)
