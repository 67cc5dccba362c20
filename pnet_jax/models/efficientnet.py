"""EfficientNetV2 (arXiv 2104.00298) and EfficientNet-Lite0, static or dynamic (arXiv 2306.14525).

The networks are timm's `tf_efficientnetv2_*` and `tf_efficientnet_lite0`: TensorFlow's SAME padding
and batch norm with epsilon 1e-3. Every block is a chain of convolutions, each with batch norm:

| kind        | chain                                                    | activation after |
|-------------|----------------------------------------------------------|------------------|
| `conv`      | k x k                                                    | it               |
| `fused`     | k x k to the expanded channels, 1x1                      | all but the last |
| `separable` | depthwise, 1x1                                           | all but the last |
| `inverted`  | 1x1 to the expanded channels, depthwise, [squeeze], 1x1  | all but the last |

The dynamic form follows ParameterNet's rule: `num_experts` kernels in every convolution but the
strided depthwise ones, squeeze-and-excite and the head.
"""

import math
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
    SqueezeExcite,
    apply_block,
    joined,
    make_divisible,
)


class Row(NamedTuple):
    """A stage of the network's table; only its first block has the strides."""

    kind: str
    kernel_size: int
    strides: int
    expansion: int
    features: int
    se_ratio: float
    blocks: int


Stages = tuple[Row, ...]

STAGES_V2_B: Stages = (
    Row("conv", 3, 1, 1, 16, 0, 1),
    Row("fused", 3, 2, 4, 32, 0, 2),
    Row("fused", 3, 2, 4, 48, 0, 2),
    Row("inverted", 3, 2, 4, 96, 0.25, 3),
    Row("inverted", 3, 1, 6, 112, 0.25, 5),
    Row("inverted", 3, 2, 6, 192, 0.25, 8),
)
STAGES_V2_S: Stages = (
    Row("conv", 3, 1, 1, 24, 0, 2),
    Row("fused", 3, 2, 4, 48, 0, 4),
    Row("fused", 3, 2, 4, 64, 0, 4),
    Row("inverted", 3, 2, 4, 128, 0.25, 6),
    Row("inverted", 3, 1, 6, 160, 0.25, 9),
    Row("inverted", 3, 2, 6, 256, 0.25, 15),
)
STAGES_LITE0: Stages = (
    Row("separable", 3, 1, 1, 16, 0, 1),
    Row("inverted", 3, 2, 6, 24, 0, 2),
    Row("inverted", 5, 2, 6, 40, 0, 2),
    Row("inverted", 3, 2, 6, 80, 0, 3),
    Row("inverted", 5, 1, 6, 112, 0, 3),
    Row("inverted", 5, 2, 6, 192, 0, 4),
    Row("inverted", 3, 1, 6, 320, 0, 1),
)


class Step(NamedTuple):
    """A convolution of a block."""

    name: str
    features: int
    kernel_size: int = 1
    strides: int = 1
    groups: int = 1


def chain(row: Row, inputs: int, features: int) -> tuple[Step, ...]:
    """The convolutions of a block of `row`, in order."""
    expanded, k, s = inputs * row.expansion, row.kernel_size, row.strides
    if row.kind == "conv":
        return (Step("conv", features, k, s),)
    if row.kind == "fused":
        return Step("conv_exp", expanded, k, s), Step("conv_pwl", features)
    if row.kind == "separable":
        return Step("conv_dw", inputs, k, s, inputs), Step("conv_pw", features)
    return (
        Step("conv_pw", expanded),
        Step("conv_dw", expanded, k, s, expanded),
        Step("conv_pwl", features),
    )


class Options(NamedTuple):
    """What every block of one network has in common."""

    act: Callable[[jax.Array], jax.Array]
    num_experts: int | None
    routing: str
    routing_ratio: float
    form: str
    bn_groups: int
    bn_statistics: str
    dtype: Any

    def batch_norm(
        self, name: str, scale_init: Callable[..., jax.Array] = nn.initializers.ones
    ) -> BatchNorm:
        return BatchNorm(
            groups=self.bn_groups,
            statistics=self.bn_statistics,
            epsilon=1e-3,
            scale_init=scale_init,
            dtype=self.dtype,
            name=name,
        )

    def conv(self, step: Step, x: jax.Array, temperature: jax.Array | float) -> jax.Array:
        """Dynamic if the network has experts, unless the step is depthwise and strided."""
        name, features, kernel_size, strides, groups = step
        if self.num_experts is None or (groups > 1 and strides > 1):
            static = Conv(
                features,
                kernel_size,
                strides,
                groups,
                padding="same",
                dtype=self.dtype,
                name=name,
            )
            return static(x)
        dynamic = DynamicConv(
            features,
            kernel_size,
            strides,
            groups,
            num_experts=self.num_experts,
            routing=self.routing,
            routing_ratio=self.routing_ratio,
            form=self.form,
            padding="same",
            dtype=self.dtype,
            name=name,
        )
        return dynamic(x, temperature)


class Block(nn.Module):
    """One block of a stage, and its input added where the shapes are the same."""

    row: Row
    features: int
    drop_path_rate: float
    options: Options

    @nn.compact
    def __call__(self, x: jax.Array, temperature: jax.Array | float, *, train: bool) -> jax.Array:
        row, options, inputs = self.row, self.options, x.shape[-1]
        skip = row.strides == 1 and inputs == self.features
        steps = chain(row, inputs, self.features)
        y = x
        for place, step in enumerate(steps, start=1):
            last = place == len(steps)
            if last and row.se_ratio > 0:
                # The ratio is to the block's input, as in TensorFlow's code.
                squeezed = max(1, round(inputs * row.se_ratio))
                se = SqueezeExcite(squeezed, options.act, nn.sigmoid, options.dtype, name="se")
                y = joined(se(y))
            y = options.conv(step, y, temperature)
            # A branch that starts at zero leaves the shortcut alone (arXiv 1706.02677, section
            # 5.1), as in this project's GhostNet; the published code starts it at one.
            scale_init = nn.initializers.zeros if last and skip else nn.initializers.ones
            y = options.batch_norm(f"bn{place}", scale_init)(y, train=train)
            if not last or row.kind == "conv":
                y = options.act(y)
        return x + DropPath(self.drop_path_rate)(y, train=train) if skip else y


class EfficientNet(nn.Module):
    """Stem, the table's blocks, a 1x1 expansion to 1280 features, pool, dropout, classifier.

    `width` multiplies all channels, rounded to multiples of 8, and `depth` the blocks of each
    stage, rounded up (arXiv 1905.11946). `num_experts = None` makes every convolution static.
    `drop_path_rate` grows linearly over the blocks. `form` is how dynamic convolutions are computed
    (`ops.dynamic_conv.FORMS`).
    """

    num_classes: int
    stages: Stages
    stem_features: int = 32
    width: float = 1.0
    depth: float = 1.0
    act: Callable[[jax.Array], jax.Array] = nn.silu
    num_experts: int | None = None
    routing: str = "softmax_mlp"
    routing_ratio: float = 0.25
    form: str = "auto"
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
            bn_groups=self.bn_groups,
            bn_statistics=self.bn_statistics,
            dtype=self.dtype,
        )
        x = images.astype(self.dtype)
        stem = Step("conv_stem", self.channels(self.stem_features), kernel_size=3, strides=2)
        x = self.act(options.batch_norm("bn1")(options.conv(stem, x, temperature), train=train))
        blocks = [
            (f"blocks_{stage}_{index}", row if index == 0 else row._replace(strides=1))
            for stage, row in enumerate(self.stages)
            for index in range(math.ceil(row.blocks * self.depth))
        ]
        for place, (name, row) in enumerate(blocks):
            block = Block(
                row=row,
                features=self.channels(row.features),
                drop_path_rate=self.drop_path_rate * place / len(blocks),
                options=options,
                name=name,
            )
            x = apply_block(block, x, temperature, train=train, remat=self.remat)
        x = Conv(self.channels(1280), dtype=self.dtype, name="conv_head")(x)
        x = self.act(options.batch_norm("bn2")(x, train=train))
        x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(x)
        x = nn.Dense(
            self.num_classes,
            kernel_init=constant_std(0.01),
            dtype=self.dtype,
            name="classifier",
        )(x)
        return x.astype(jnp.float32)

    def channels(self, features: int) -> int:
        """Of a layer with so many at width 1."""
        return make_divisible(features * self.width, 8, limit=0.0)


_B = {"stages": STAGES_V2_B}

MODELS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    "efficientnetv2_b0": (EfficientNet, _B),
    "efficientnetv2_b0_dynamic": (EfficientNet, _B | {"num_experts": 4}),
    "efficientnetv2_b1": (EfficientNet, _B | {"depth": 1.1}),
    "efficientnetv2_b2": (EfficientNet, _B | {"width": 1.1, "depth": 1.2}),
    "efficientnetv2_b3": (EfficientNet, _B | {"width": 1.2, "depth": 1.4}),
    "efficientnetv2_s": (EfficientNet, {"stages": STAGES_V2_S, "stem_features": 24}),
    "efficientnet_lite0": (EfficientNet, {"stages": STAGES_LITE0, "act": nn.relu6}),
}
