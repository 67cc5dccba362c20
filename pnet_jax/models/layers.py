"""Layers that several networks share.

Images are NHWC, parameters float32, computation in `dtype`.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from pnet_jax.models.initializers import he_fan_out
from pnet_jax.ops.batch_norm import normalize_batch
from pnet_jax.ops.depthwise import depthwise_conv
from pnet_jax.ops.padding import Padding, same_padding, sides

# A feature map, or the parts of its channels, which are not copied together before they must be.
Parts = jax.Array | tuple[jax.Array, ...]


def joined(x: Parts) -> jax.Array:
    """The parts as one array."""
    return jnp.concatenate(x, axis=-1) if isinstance(x, tuple) else x


def pixel_mean(x: Parts) -> jax.Array:
    """`[N, H, W, C]` to `[N, C]` float32."""
    parts = x if isinstance(x, tuple) else (x,)
    means = [jnp.mean(part, axis=(1, 2), dtype=jnp.float32) for part in parts]
    return jnp.concatenate(means, axis=-1)


def make_divisible(value: float, divisor: int = 4, limit: float = 0.9) -> int:
    """A channel count as a multiple of `divisor`, never below `limit` of it (arXiv 1801.04381)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < limit * value else rounded


def conv_padding(padding: str, x: jax.Array, kernel_size: int, strides: int) -> Padding:
    """The zeros of a convolution of `x`: "symmetric", (kernel - 1) / 2 on each side, or "same".

    The two differ with strides: TensorFlow's SAME puts fewer zeros at the top and left.
    """
    if padding == "symmetric":
        return (kernel_size - 1) // 2
    if padding == "same":
        return same_padding(x.shape[1:3], kernel_size, strides)
    raise ValueError(f"There is no padding {padding!r}; choose 'symmetric' or 'same'.")


class Conv(nn.Module):
    """A static convolution; `padding` is that of `conv_padding`."""

    features: int
    kernel_size: int = 1
    strides: int = 1
    groups: int = 1
    use_bias: bool = False
    padding: str = "symmetric"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = self.kernel_size
        padding = conv_padding(self.padding, x, size, self.strides)
        shape = (size, size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", he_fan_out(self.groups), shape).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.groups == x.shape[-1] == self.features:
            x = depthwise_conv(x, kernel[None, :, :, 0], self.strides, padding)
        else:
            x = lax.conv_general_dilated(
                x,
                kernel,
                window_strides=(self.strides, self.strides),
                padding=sides(padding),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=self.groups,
            )
        if self.use_bias:
            x = x + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return x


class BatchNorm(nn.Module):
    """Batch normalisation with running averages in `batch_stats` (biased variance, as in Flax).

    `groups` > 1 splits the batch into that many groups, each normalised by its own statistics, so
    that a sharded batch needs no communication; 1 means statistics of the whole global batch. With
    `statistics = "running"` training normalises by the running averages and leaves them alone.
    """

    groups: int = 1
    statistics: str = "batch"
    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: Callable[..., jax.Array] = nn.initializers.ones
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param("scale", self.scale_init, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if not train or self.statistics == "running":
            factor = lax.rsqrt(var.value + self.epsilon) * scale
            y = x.astype(jnp.float32) * factor + (bias - mean.value * factor)
            return y.astype(self.dtype)
        if x.shape[0] % self.groups:
            raise ValueError(
                f"bn_groups = {self.groups} does not divide the batch of {x.shape[0]} images."
            )
        grouped = x.reshape(self.groups, -1, *x.shape[1:])
        y, batch_mean, batch_var = normalize_batch(grouped, scale, bias, self.epsilon)
        if not self.is_initializing():
            mean.value += (1 - self.momentum) * (batch_mean.mean(axis=0) - mean.value)
            var.value += (1 - self.momentum) * (batch_var.mean(axis=0) - var.value)
        return y.reshape(x.shape).astype(self.dtype)


class SqueezeExcite(nn.Module):
    """Scales channels by gate(W2 act(W1 mean(x))).

    From arXiv 1709.01507, where the gate is a sigmoid; MobileNetV3 made it the hard sigmoid (arXiv
    1905.02244).
    """

    squeezed_features: int
    act: Callable[[jax.Array], jax.Array]
    gate: Callable[[jax.Array], jax.Array] = nn.hard_sigmoid
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Parts) -> Parts:
        gate = pixel_mean(x)[:, None, None]
        conv = functools.partial(Conv, use_bias=True, dtype=self.dtype)
        gate = self.act(conv(self.squeezed_features, name="conv_reduce")(gate))
        parts = x if isinstance(x, tuple) else (x,)
        ends = list(itertools.accumulate(part.shape[-1] for part in parts))
        gate = self.gate(conv(ends[-1], name="conv_expand")(gate))
        gates = jnp.split(gate, ends[:-1], axis=-1)
        scaled = tuple(part * gate for part, gate in zip(parts, gates, strict=True))
        return scaled if isinstance(x, tuple) else scaled[0]


class DropPath(nn.Module):
    """Drops a sample's residual branch with probability `rate` (arXiv 1603.09382)."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if not train or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = jax.random.bernoulli(self.make_rng("dropout"), keep, (x.shape[0], 1, 1, 1))
        return x * mask.astype(x.dtype) / keep


def apply_block(block: nn.Module, *inputs: Any, train: bool, remat: bool) -> Any:
    """`block(*inputs, train=train)`.

    With `remat` its activations are not kept for the gradient but computed again: less memory for
    about a third more computation (arXiv 1604.06174).
    """
    if not remat or not train:
        return block(*inputs, train=train)
    return nn.remat(lambda module, *inputs: module(*inputs, train=train))(block, *inputs)
