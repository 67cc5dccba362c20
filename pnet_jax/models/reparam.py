"""Parallel branches that one convolution can stand in for (RepVGG, arXiv 2101.03697).

They add parameters in training and none in inference. The ParameterNet paper (arXiv 2306.14525)
sets them against experts and finds that large-scale pretraining gains nothing from them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from pnet_jax.models.layers import BatchNorm, Conv


class Branches(nn.Module):
    """What stands beside a convolution and its batch norm, summed, each with its own batch norm:

    `count` more convolutions of the same shape, a 1x1 one if that is not the shape already, and the
    input itself if it has the shape of the output.
    """

    features: int
    kernel_size: int
    strides: int
    groups: int
    count: int
    # Makes one of the given name.
    batch_norm: Callable[[str], BatchNorm]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[N, H, W, C]` to `[N, H', W', features]`, with the convolution's symmetric padding."""
        sizes = [self.kernel_size] * self.count + ([1] if self.kernel_size > 1 else [])
        total = jnp.zeros((), self.dtype)
        for place, size in enumerate(sizes):
            conv = Conv(
                self.features,
                size,
                self.strides,
                self.groups,
                dtype=self.dtype,
                name=f"conv_{place}",
            )
            total = total + self.batch_norm(f"bn_{place}")(conv(x), train=train)
        if self.strides == 1 and x.shape[-1] == self.features:
            total = total + self.batch_norm("bn_identity")(x, train=train)
        return total
