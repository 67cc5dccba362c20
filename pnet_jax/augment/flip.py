"""Random horizontal flips."""

import jax
import jax.numpy as jnp


def random_flip(images: jax.Array, key: jax.Array) -> jax.Array:
    """Mirrors each of `[N, H, W, C]` left to right with probability 1/2."""
    flip = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)
