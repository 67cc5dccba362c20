"""Swin Transformer (arXiv 2103.14030), static or with dynamic linear layers (arXiv 2306.14525).

The three published sizes, and three below them for curves over MACs. Those keep Swin-T's stages
but for the third, 24 channels a head instead of 32, and have the widths 24, 48 and 72; the third
stage is the deepest that stays within the name's budget. MACs are those of one image of 224 x 224,
the two products of attention among them; parameters are with 1,000 classes.

| name                | channels | blocks      | heads        |           MACs | parameters |
|---------------------|----------|-------------|--------------|----------------|------------|
| `swin_300m`         | 24       | 2, 2, 5, 2  | 1, 2, 4, 8   |    286,270,464 |  1,819,738 |
| `swin_300m_dynamic` | 24       | 2, 2, 5, 2  | 1, 2, 4, 8   |    293,337,360 |  7,285,170 |
| `swin_1g`           | 48       | 2, 2, 4, 2  | 2, 4, 8, 16  |    980,697,600 |  6,399,428 |
| `swin_2g`           | 72       | 2, 2, 3, 2  | 3, 6, 12, 24 |  1,953,225,216 | 13,076,518 |
| `swin_tiny`         | 96       | 2, 2, 6, 2  | 3, 6, 12, 24 |  4,490,566,656 | 28,288,354 |
| `swin_small`        | 96       | 2, 2, 18, 2 | 3, 6, 12, 24 |  8,740,875,264 | 49,606,258 |
| `swin_base`         | 128      | 2, 2, 18, 2 | 4, 8, 16, 32 | 15,430,946,816 | 87,768,224 |
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from pnet_jax.models.dynamic import DynamicConv
from pnet_jax.models.initializers import Normal, constant_std
from pnet_jax.models.layers import DropPath, apply_block
from pnet_jax.ops.windows import Windows

PATCH = 4
WINDOW = 7


def _linear_init(groups: int = 1, gain: float = 1.0) -> Normal:
    """The published standard deviation of every linear layer, in the form of `he_fan_out`."""
    del groups
    return constant_std(0.02 * gain)


class Options(NamedTuple):
    """What every block of one network has in common."""

    num_experts: int | None
    routing: str
    routing_ratio: float
    form: str
    dtype: Any

    def norm(self, name: str) -> nn.LayerNorm:
        return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)

    def linear(
        self,
        x: jax.Array,
        temperature: jax.Array | float,
        features: int,
        *,
        name: str,
        use_bias: bool = True,
    ) -> jax.Array:
        """`[N, H, W, C]` to `[N, H, W, features]`: dynamic if the network has experts."""
        if self.num_experts is None:
            return nn.Dense(
                features,
                use_bias=use_bias,
                kernel_init=_linear_init(),
                dtype=self.dtype,
                name=name,
            )(x)
        return DynamicConv(
            features,
            num_experts=self.num_experts,
            routing=self.routing,
            routing_ratio=self.routing_ratio,
            form=self.form,
            use_bias=use_bias,
            kernel_init=_linear_init,
            dtype=self.dtype,
            name=name,
        )(x, temperature)


class WindowAttention(nn.Module):
    """Self-attention among the pixels of each window, with a learnt bias for each offset."""

    num_heads: int
    shift: int
    options: Options

    @nn.compact
    def __call__(self, x: jax.Array, temperature: jax.Array | float) -> jax.Array:
        """`[N, H, W, C]` to the same shape."""
        _, height, width, channels = x.shape
        windows = Windows.of(height, width, window=WINDOW, shift=self.shift)
        # The linear layers see the map, not windows: a dynamic one needs to know whose pixels
        # these are.
        qkv = windows.cut(self.options.linear(x, temperature, 3 * channels, name="qkv"))
        qkv = qkv.reshape(*qkv.shape[:3], 3, self.num_heads, channels // self.num_heads)
        query, key, value = (qkv[:, :, :, place] for place in range(3))
        scores = jnp.einsum(
            "nwqhd,nwkhd->nwhqk",
            query * (channels // self.num_heads) ** -0.5,
            key,
            preferred_element_type=jnp.float32,
        )
        table = self.param(
            "relative_position_bias_table",
            constant_std(0.02),
            (self.num_heads, (2 * WINDOW - 1) ** 2),
        )
        scores += table[:, windows.relative_positions(WINDOW)]
        mask = windows.mask()
        if mask is not None:
            scores = jnp.where(mask[:, None], scores, -jnp.inf)
        attention = nn.softmax(scores).astype(value.dtype)
        y = jnp.einsum("nwhqk,nwkhd->nwqhd", attention, value)
        y = windows.join(y.reshape(*y.shape[:3], channels))
        return self.options.linear(y, temperature, channels, name="proj")


class Mlp(nn.Module):
    """Linear to four times the channels, GELU, linear back."""

    options: Options

    @nn.compact
    def __call__(self, x: jax.Array, temperature: jax.Array | float) -> jax.Array:
        channels = x.shape[-1]
        x = self.options.linear(x, temperature, 4 * channels, name="fc1")
        x = nn.gelu(x, approximate=False)
        return self.options.linear(x, temperature, channels, name="fc2")


class Block(nn.Module):
    """Attention and MLP, each after a layer norm and beside a shortcut."""

    num_heads: int
    shift: int
    drop_path_rate: float
    options: Options

    @nn.compact
    def __call__(self, x: jax.Array, temperature: jax.Array | float, *, train: bool) -> jax.Array:
        attention = WindowAttention(self.num_heads, self.shift, self.options, name="attn")
        y = attention(self.options.norm("norm1")(x), temperature)
        x = x + DropPath(self.drop_path_rate)(y, train=train)
        y = Mlp(self.options, name="mlp")(self.options.norm("norm2")(x), temperature)
        return x + DropPath(self.drop_path_rate)(y, train=train)


class PatchEmbed(nn.Module):
    """Each patch of 4 x 4 pixels becomes one of `features` channels."""

    features: int
    options: Options

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """`[N, H, W, 3]` to `[N, ceil(H / 4), ceil(W / 4), features]`."""
        proj = nn.Conv(
            self.features,
            kernel_size=(PATCH, PATCH),
            strides=(PATCH, PATCH),
            padding="VALID",
            # That of PyTorch's convolutions, (3 x 4 x 4 x 3 channels)^-1/2, which stays.
            kernel_init=constant_std(1 / 12),
            dtype=self.options.dtype,
            name="proj",
        )
        return self.options.norm("norm")(proj(_pad_to_multiple(images, PATCH)))


class PatchMerging(nn.Module):
    """Four neighbouring pixels become one of twice the channels."""

    options: Options

    @nn.compact
    def __call__(self, x: jax.Array, temperature: jax.Array | float) -> jax.Array:
        """`[N, H, W, C]` to `[N, ceil(H / 2), ceil(W / 2), 2 C]`."""
        x = _pad_to_multiple(x, 2)
        n, height, width, channels = x.shape
        x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
        # The published order of the four: down first, then to the right.
        x = x.transpose(0, 1, 3, 4, 2, 5).reshape(n, height // 2, width // 2, 4 * channels)
        x = self.options.norm("norm")(x)
        return self.options.linear(x, temperature, 2 * channels, name="reduction", use_bias=False)


def _pad_to_multiple(x: jax.Array, multiple: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % multiple), (0, -x.shape[2] % multiple), (0, 0)))


class Swin(nn.Module):
    """Patches, four stages of blocks at halving resolution, the mean over pixels, a classifier.

    `embed_dim` and `num_heads` are those of the first stage and double from stage to stage; `width`
    scales the channels, not the heads. Images of any size work: what fills up patches, windows and
    merged pixels is zero and hidden from attention, and a map below 7 x 7 is one window.

    With `num_experts` the four linear layers of every block and the reductions between stages are
    dynamic, each with its own router and one bias for all experts; the embedding of patches and the
    classifier stay static. `form` is how they are computed (`ops.dynamic_conv.FORMS`).
    `drop_path_rate` grows linearly over the blocks, from 0 at the first.
    """

    num_classes: int
    embed_dim: int
    depths: tuple[int, ...]
    num_heads: int
    width: float = 1.0
    num_experts: int | None = None
    routing: str = "softmax_mlp"
    routing_ratio: float = 0.25
    form: str = "auto"
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
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

        With `train`, dropout draws from the rng stream `dropout`; there are no batch statistics.
        `temperature` is that of softmax routing.
        """
        options = Options(self.num_experts, self.routing, self.routing_ratio, self.form, self.dtype)
        channels_per_head = max(1, round(self.width * self.embed_dim / self.num_heads))
        features = channels_per_head * self.num_heads
        x = PatchEmbed(features, options, name="patch_embed")(images.astype(self.dtype))
        block = 0
        for stage, depth in enumerate(self.depths):
            if stage > 0:
                merging = PatchMerging(options, name=f"layers_{stage}_downsample")
                x = merging(x, temperature)
            for index in range(depth):
                layer = Block(
                    num_heads=self.num_heads * 2**stage,
                    # Every other block sees across the borders of the one before.
                    shift=index % 2 * (WINDOW // 2),
                    drop_path_rate=self.drop_path_rate * block / max(1, sum(self.depths) - 1),
                    options=options,
                    name=f"layers_{stage}_blocks_{index}",
                )
                x = apply_block(layer, x, temperature, train=train, remat=self.remat)
                block += 1
        x = jnp.mean(options.norm("norm")(x), axis=(1, 2), dtype=jnp.float32)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(x)
        head = nn.Dense(self.num_classes, kernel_init=_linear_init(), dtype=self.dtype, name="head")
        return head(x).astype(jnp.float32)


_TINY = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": 3}
_300M = {"embed_dim": 24, "depths": (2, 2, 5, 2), "num_heads": 1}

MODELS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    "swin_300m": (Swin, _300M),
    "swin_300m_dynamic": (Swin, _300M | {"num_experts": 4}),
    "swin_1g": (Swin, {"embed_dim": 48, "depths": (2, 2, 4, 2), "num_heads": 2}),
    "swin_2g": (Swin, {"embed_dim": 72, "depths": (2, 2, 3, 2), "num_heads": 3}),
    "swin_tiny": (Swin, _TINY),
    "swin_small": (Swin, _TINY | {"depths": (2, 2, 18, 2)}),
    "swin_base": (Swin, {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": 4}),
}
