"""Bytes to the normalised floats that networks take."""

import jax
import jax.numpy as jnp

# ImageNet's channel means and standard deviations in [0, 255], which the published weights expect.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


def normalize(images: jax.Array, dtype: jax.typing.DTypeLike = jnp.float32) -> jax.Array:
    """`[N, H, W, 3]` uint8 RGB to zero mean and unit variance over ImageNet."""
    return ((images.astype(jnp.float32) - jnp.array(MEAN)) / jnp.array(STD)).astype(dtype)
