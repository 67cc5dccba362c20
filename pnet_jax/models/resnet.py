"""ResNet-50 (arXiv 1512.03385) in its version 1.5: the 3x3 convolution has the stride.

The network is timm's `resnet50`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from pnet_jax.models.initializers import constant_std
from pnet_jax.models.layers import BatchNorm, Conv, DropPath, apply_block, make_divisible


class Options(NamedTuple):
    """What every block of one network has in common."""

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

    def conv(self, features: int, kernel_size: int, strides: int, name: str) -> Conv:
        return Conv(features, kernel_size, strides, dtype=self.dtype, name=name)


class Bottleneck(nn.Module):
    """1x1 to `features`, 3x3 with the stride, 1x1 to four times as many, around them a shortcut."""

    features: int
    strides: int
    drop_path_rate: float
    options: Options

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        options, features = self.options, self.features
        y = options.conv(features, 1, 1, "conv1")(x)
        y = nn.relu(options.batch_norm("bn1")(y, train=train))
        y = options.conv(features, 3, self.strides, "conv2")(y)
        y = nn.relu(options.batch_norm("bn2")(y, train=train))
        y = options.conv(4 * features, 1, 1, "conv3")(y)
        # The branch starts at zero (arXiv 1706.02677, section 5.1).
        y = options.batch_norm("bn3", nn.initializers.zeros)(y, train=train)
        if self.strides > 1 or x.shape[-1] != 4 * features:
            x = options.conv(4 * features, 1, self.strides, "downsample_conv")(x)
            x = options.batch_norm("downsample_bn")(x, train=train)
        return nn.relu(x + DropPath(self.drop_path_rate)(y, train=train))


class ResNet(nn.Module):
    """7x7 stem, max pool, four stages of bottlenecks, average pool, dropout, classifier.

    `stages` holds the number of blocks of each. `width` multiplies all channels. `drop_path_rate`
    grows linearly over the blocks, up to itself at the last.
    """

    num_classes: int
    stages: tuple[int, ...]
    width: float = 1.0
    drop_rate: float = 0.0
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
        draws from the rng stream `dropout`. `temperature` is that of dynamic networks: nothing is
        routed here.
        """
        del temperature
        options = Options(self.bn_groups, self.bn_statistics, self.dtype)
        base = make_divisible(64 * self.width)
        x = options.conv(base, 7, 2, "conv1")(images.astype(self.dtype))
        x = nn.relu(options.batch_norm("bn1")(x, train=train))
        x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        place, before_last = 0, max(1, sum(self.stages) - 1)
        for stage, blocks in enumerate(self.stages):
            for index in range(blocks):
                block = Bottleneck(
                    features=base * 2**stage,
                    strides=2 if stage > 0 and index == 0 else 1,
                    drop_path_rate=self.drop_path_rate * place / before_last,
                    options=options,
                    name=f"layer{stage + 1}_{index}",
                )
                x = apply_block(block, x, train=train, remat=self.remat)
                place += 1
        x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(x)
        x = nn.Dense(
            self.num_classes,
            kernel_init=constant_std(0.01),
            dtype=self.dtype,
            name="classifier",
        )(x)
        return x.astype(jnp.float32)


MODELS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    "resnet50": (ResNet, {"stages": (3, 4, 6, 3)}),
}
