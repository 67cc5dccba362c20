"""Batch normalisation in training, with a gradient written by hand.

Autodiff of mean and variance reads the activations three more times than needed in the backward
pass; these networks are bound by memory traffic, so the two sums that the gradient needs are taken
in one pass.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize_batch(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises each channel of each group of samples by its own mean and (biased) variance.

    Args:
      x: `[G, N / G, H, W, C]`: the batch in G groups with statistics of their own.
      scale: `[C]` float32.
      bias: `[C]` float32.
      epsilon: added to the variance.

    Returns:
      The normalised x in its own dtype, and mean and variance, both `[G, C]` float32. No gradient
      flows through the two statistics: they only feed the running averages.
    """
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> Any:
    """What `normalize_batch` returns, and what its gradient needs."""
    count = x.size // (x.shape[0] * x.shape[-1])
    wide = x.astype(jnp.float32)
    mean = wide.sum(axis=(1, 2, 3)) / count
    # Rounding can take the difference of the two squares below zero.
    variance = jnp.maximum((wide * wide).sum(axis=(1, 2, 3)) / count - mean * mean, 0.0)
    rstd = lax.rsqrt(variance + epsilon)
    y = (wide - _spread(mean)) * _spread(rstd * scale) + bias
    return (y.astype(x.dtype), mean, variance), (x, mean, rstd, scale)


def _backward(epsilon: float, saved: Any, gradients: Any) -> tuple[jax.Array, ...]:
    x, mean, rstd, scale = saved
    dy = gradients[0].astype(jnp.float32)
    count = x.size // (x.shape[0] * x.shape[-1])
    centred = x.astype(jnp.float32) - _spread(mean)
    dbias = dy.sum(axis=(1, 2, 3))
    dscale = (dy * centred).sum(axis=(1, 2, 3)) * rstd
    dx = _spread(rstd * scale) * (
        dy - _spread(dbias) / count - centred * _spread(rstd * dscale) / count
    )
    return dx.astype(x.dtype), dscale.sum(axis=0), dbias.sum(axis=0)


def _spread(per_group: jax.Array) -> jax.Array:
    return per_group[:, None, None, None]


normalize_batch.defvjp(_forward, _backward)
