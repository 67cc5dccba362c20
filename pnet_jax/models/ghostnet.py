"""GhostNet (arXiv 1911.11907), static or dynamic (ParameterNet, arXiv 2306.14525).

A ghost module makes half of its channels by a 1x1 convolution and the other half from them by a
cheap depthwise one. ParameterNet is the same network with `num_experts` kernels in every
convolution but the strided depthwise one of the main path, squeeze-and-excite and the head. In the
same places `num_branches` > 1 sets parallel convolutions (`reparam.py`), the other way to more
parameters that the ParameterNet paper tries; `convert.merge_branches` makes one of them again.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from pnet_jax.models.dynamic import DynamicConv
from pnet_jax.models.initializers import constant_std
from pnet_jax.models.layers import (
    BatchNorm,
    Conv,
    DropPath,
    Parts,
    SqueezeExcite,
    apply_block,
    joined,
    make_divisible,
)
from pnet_jax.models.reparam import Branches


class Row(NamedTuple):
    """A bottleneck of the network's table, in channels at width 1."""

    kernel_size: int
    expansion: int
    features: int
    se_ratio: float
    strides: int


Stages = tuple[tuple[Row, ...], ...]

# The table of the GhostNet paper, of which the 300M networks are the width 1.45.
STAGES_300M: Stages = (
    (Row(3, 16, 16, 0, 1),),
    (Row(3, 48, 24, 0, 2),),
    (Row(3, 72, 24, 0, 1),),
    (Row(5, 72, 40, 0.25, 2),),
    (Row(5, 120, 40, 0.25, 1),),
    (Row(3, 240, 80, 0, 2),),
    (
        Row(3, 200, 80, 0, 1),
        Row(3, 184, 80, 0, 1),
        Row(3, 184, 80, 0, 1),
        Row(3, 480, 112, 0.25, 1),
        Row(3, 672, 112, 0.25, 1),
    ),
    (Row(5, 672, 160, 0.25, 2),),
    (
        Row(5, 960, 160, 0, 1),
        Row(5, 960, 160, 0.25, 1),
        Row(5, 960, 160, 0, 1),
        Row(5, 960, 160, 0.25, 1),
    ),
)
# The deeper table of the 600M networks, at width 1.9 and with hard swish.
STAGES_600M: Stages = (
    (Row(3, 16, 16, 0, 1),),
    (Row(3, 48, 24, 0, 2),),
    (Row(3, 72, 24, 0, 1),),
    (Row(5, 72, 40, 0.25, 2),),
    (Row(3, 120, 40, 0.25, 1),) * 2,
    (Row(3, 240, 80, 0, 2),),
    (Row(3, 200, 80, 0, 1),) * 3 + (Row(3, 480, 112, 0.25, 1),) + (Row(3, 672, 112, 0.25, 1),) * 2,
    (Row(5, 672, 160, 0.25, 2),),
    (Row(3, 960, 160, 0.25, 1),) * 5,
)


class Options(NamedTuple):
    """What every block of one network has in common."""

    act: Callable[[jax.Array], jax.Array]
    num_experts: int | None
    routing: str
    routing_ratio: float
    form: str
    num_branches: int
    bn_groups: int
    bn_statistics: str
    dtype: Any

    def batch_norm(
        self, name: str, scale_init: Callable[..., jax.Array] = nn.initializers.ones
    ) -> BatchNorm:
        return BatchNorm(
            groups=self.bn_groups,
            statistics=self.bn_statistics,
            scale_init=scale_init,
            dtype=self.dtype,
            name=name,
        )

    def conv_bn(
        self,
        x: Parts,
        temperature: jax.Array | float,
        features: int,
        *,
        name: str,
        kernel_size: int = 1,
        strides: int = 1,
        groups: int = 1,
        scale_init: Callable[..., jax.Array] = nn.initializers.ones,
        train: bool,
    ) -> jax.Array:
        """A convolution and its batch norm, plus the branches beside them if there are any."""
        y = self._conv(x, temperature, features, name, kernel_size, strides, groups)
        y = self.batch_norm(batch_norm_of(name), scale_init)(y, train=train)
        if self.num_branches == 1:
            return y
        batch_norm = functools.partial(self.batch_norm, scale_init=scale_init)
        branches = Branches(
            features,
            kernel_size,
            strides,
            groups,
            count=self.num_branches - 1,
            batch_norm=batch_norm,
            dtype=self.dtype,
            name=f"{name}_branches",
        )
        return y + branches(joined(x), train=train)

    def _conv(
        self,
        x: Parts,
        temperature: jax.Array | float,
        features: int,
        name: str,
        kernel_size: int,
        strides: int,
        groups: int,
    ) -> jax.Array:
        """A convolution that is dynamic if the network has experts, static if not."""
        if self.num_experts is None:
            layer = Conv(features, kernel_size, strides, groups, dtype=self.dtype, name=name)
            return layer(joined(x))
        dynamic_layer = DynamicConv(
            features,
            kernel_size,
            strides,
            groups,
            num_experts=self.num_experts,
            routing=self.routing,
            routing_ratio=self.routing_ratio,
            form=self.form,
            dtype=self.dtype,
            name=name,
        )
        return dynamic_layer(x, temperature)


def batch_norm_of(conv: str) -> str:
    """The name of the batch norm after the convolution of that name."""
    if conv.startswith("blocks_"):
        return conv.removesuffix("conv") + "bn1"
    named = {"conv_stem": "bn1", "primary_conv": "primary_bn", "cheap_conv": "cheap_bn"}
    return named.get(conv, f"{conv}_bn")


def _linear(x: jax.Array) -> jax.Array:
    return x


class GhostModule(nn.Module):
    """ceil(features / 2) channels by 1x1, as many from them by depthwise 3x3; a surplus is cut."""

    features: int
    act: Callable[[jax.Array], jax.Array]
    options: Options
    # Of the batch norms' scales.
    scale_init: Callable[..., jax.Array] = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Parts, temperature: jax.Array | float, *, train: bool) -> Parts:
        """The two kinds of channels as two parts: who can read them so saves a copy."""
        half = -(-self.features // 2)
        options = self.options
        conv_bn = functools.partial(options.conv_bn, scale_init=self.scale_init, train=train)
        x = self.act(conv_bn(x, temperature, half, name="primary_conv"))
        y = conv_bn(x, temperature, half, name="cheap_conv", kernel_size=3, groups=half)
        y = self.act(y)
        return x, y[..., : self.features - half]


class GhostBottleneck(nn.Module):
    """Two ghost modules, between them the stride and squeeze-and-excite, around them a shortcut."""

    expansion: int
    features: int
    kernel_size: int
    strides: int
    se_ratio: float
    drop_path_rate: float
    options: Options

    @nn.compact
    def __call__(self, x: jax.Array, temperature: jax.Array | float, *, train: bool) -> jax.Array:
        options, inputs = self.options, x.shape[-1]
        kernel_size, strides = self.kernel_size, self.strides
        ghost1 = GhostModule(self.expansion, options.act, options, name="ghost1")
        y = ghost1(x, temperature, train=train)
        if strides > 1:
            expand = self.expansion
            conv = Conv(expand, kernel_size, strides, expand, dtype=options.dtype, name="conv_dw")
            y = options.batch_norm("bn_dw")(conv(joined(y)), train=train)
        if self.se_ratio > 0:
            squeezed = make_divisible(self.expansion * self.se_ratio)
            y = SqueezeExcite(squeezed, options.act, dtype=options.dtype, name="se")(y)
        # Starting at zero, the branch adds nothing and the network is as shallow as its shortcuts
        # (arXiv 1706.02677, section 5.1); without it the first 30,000 images teach next to nothing.
        ghost2 = GhostModule(self.features, _linear, options, nn.initializers.zeros, name="ghost2")
        y = joined(ghost2(y, temperature, train=train))
        if strides > 1 or inputs != self.features:
            x = options.conv_bn(
                x,
                temperature,
                inputs,
                name="shortcut_dw",
                kernel_size=kernel_size,
                strides=strides,
                groups=inputs,
                train=train,
            )
            x = options.conv_bn(x, temperature, self.features, name="shortcut_pw", train=train)
        return x + DropPath(self.drop_path_rate)(y, train=train)


class GhostNet(nn.Module):
    """Stem, the table's bottlenecks, a 1x1 expansion; the head: pool, 1280 features, classifier.

    `num_experts = None` makes every convolution static. `drop_path_rate` grows linearly over the
    table's stages, as in the published code. `form` is how dynamic convolutions are computed
    (`ops.dynamic_conv.FORMS`).
    """

    num_classes: int
    stages: Stages
    width: float
    act: Callable[[jax.Array], jax.Array] = nn.relu
    num_experts: int | None = None
    routing: str = "softmax_mlp"
    routing_ratio: float = 0.25
    form: str = "auto"
    num_branches: int = 1
    drop_rate: float = 0.2
    drop_path_rate: float = 0.0
    bn_groups: int = 1
    bn_statistics: str = "batch"
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool = False,
        temperature: jax.Array | float = 1.0,
    ) -> jax.Array:
        """`[N, H, W, 3]` normalised images to `[N, num_classes]` float32 logits.

        With `train`, batch statistics are used and updated (`mutable=["batch_stats"]`) and dropout
        draws from the rng stream `dropout`. `temperature` is that of softmax routing.
        """
        options = Options(
            act=self.act,
            num_experts=self.num_experts,
            routing=self.routing,
            routing_ratio=self.routing_ratio,
            form=self.form,
            num_branches=self.num_branches,
            bn_groups=self.bn_groups,
            bn_statistics=self.bn_statistics,
            dtype=self.dtype,
        )
        x = images.astype(self.dtype)
        stem = make_divisible(16 * self.width)
        conv_bn = functools.partial(options.conv_bn, train=train)
        x = self.act(conv_bn(x, temperature, stem, name="conv_stem", kernel_size=3, strides=2))
        for stage, rows in enumerate(self.stages):
            drop_path_rate = self.drop_path_rate * stage / len(self.stages)
            for index, row in enumerate(rows):
                block = GhostBottleneck(
                    expansion=make_divisible(row.expansion * self.width),
                    features=make_divisible(row.features * self.width),
                    kernel_size=row.kernel_size,
                    strides=row.strides,
                    se_ratio=row.se_ratio,
                    drop_path_rate=drop_path_rate,
                    options=options,
                    name=f"blocks_{stage}_{index}",
                )
                x = apply_block(block, x, temperature, train=train, remat=self.remat)
        last = make_divisible(self.stages[-1][-1].expansion * self.width)
        x = self.act(conv_bn(x, temperature, last, name=f"blocks_{len(self.stages)}_0_conv"))
        x = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=jnp.float32)
        x = self.act(Conv(1280, use_bias=True, dtype=self.dtype, name="conv_head")(x))
        x = nn.Dropout(self.drop_rate, deterministic=not train)(x[:, 0, 0])
        x = nn.Dense(
            self.num_classes,
            kernel_init=constant_std(0.01),
            dtype=self.dtype,
            name="classifier",
        )(x)
        return x.astype(jnp.float32)


_300M = {"stages": STAGES_300M, "width": 1.45, "act": nn.relu}
_600M = {"stages": STAGES_600M, "width": 1.9, "act": nn.hard_swish}

MODELS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    # Those of the GhostNet paper.
    "ghostnet_100": (GhostNet, _300M | {"width": 1.0}),
    "ghostnet_130": (GhostNet, _300M | {"width": 1.3}),
    "ghostnet_300m": (GhostNet, _300M),
    "ghostnet_300m_reparam": (GhostNet, _300M | {"num_branches": 4}),
    "ghostnet_600m": (GhostNet, _600M),
    "parameternet_300m": (GhostNet, _300M | {"num_experts": 4}),
    "parameternet_600m": (GhostNet, _600M | {"num_experts": 4}),
}
