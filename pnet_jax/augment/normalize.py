"""Bytes to the normalised floats that networks take."""

import jax
import jax.numpy as jnp

# ImageNet's channel means and standard deviations in [0, 255], which the published weights expect.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)

# The pixels that published weights expect, by name: each channel's offset and divisor.
NORMALIZATIONS = {
    "imagenet": (MEAN, STD),
    "inception": ((127.5,) * 3, (127.5,) * 3),  # EfficientNetV2-S
    "efficientnet_lite": ((127.0,) * 3, (128.0,) * 3),
}


def normalize(
    images: jax.Array,
    dtype: jax.typing.DTypeLike = jnp.float32,
    normalization: str = "imagenet",
) -> jax.Array:
    """`[N, H, W, 3]` uint8 RGB to floats about zero.

    "imagenet" gives zero mean and unit variance over ImageNet; the others of `NORMALIZATIONS` are
    for weights that were trained on other floats.
    """
    mean, std = NORMALIZATIONS[normalization]
    return ((images.astype(jnp.float32) - jnp.array(mean)) / jnp.array(std)).astype(dtype)
