"""DynamicConv and the routers of its experts (ParameterNet, arXiv 2306.14525, section 3.3)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from pnet_jax.models.initializers import Normal, he_fan_out, lecun_fan_in
from pnet_jax.models.layers import Parts, conv_padding, pixel_mean
from pnet_jax.ops.dynamic_conv import dynamic_conv

ROUTINGS = ("softmax_mlp", "softmax_linear", "sigmoid_linear")

# The standard deviation of PyTorch's linear layers, which the published routers start with.
_router_init = lecun_fan_in(3**-0.5)


def check_routing(routing: str) -> None:
    """Raises ValueError if there is no such routing."""
    if routing not in ROUTINGS:
        raise ValueError(f"There is no routing {routing!r}; choose one of {', '.join(ROUTINGS)}.")


class Router(nn.Module):
    """The experts' coefficients of each sample, from the mean over its pixels, in float32.

    | `routing`        | generator                                                    | from      |
    |------------------|--------------------------------------------------------------|-----------|
    | `softmax_mlp`    | Linear(C, ratio C) -> ReLU -> Linear(., K) -> softmax(. / T) | the paper |
    | `softmax_linear` | Linear(C, K) -> softmax(. / T)                               | -         |
    | `sigmoid_linear` | Linear(C, K) -> sigmoid                                      | its code  |
    """

    num_experts: int
    routing: str = "softmax_mlp"
    routing_ratio: float = 0.25

    @nn.compact
    def __call__(self, x: Parts, temperature: jax.Array | float = 1.0) -> jax.Array:
        """`[N, H, W, C]`, or such parts of the channels, to `[N, K]`.

        A high `temperature` makes the softmax uniform.
        """
        check_routing(self.routing)
        pooled = pixel_mean(x)
        if self.routing == "softmax_mlp":
            hidden = max(1, round(pooled.shape[-1] * self.routing_ratio))
            pooled = nn.relu(nn.Dense(hidden, kernel_init=_router_init, name="hidden")(pooled))
        logits = nn.Dense(self.num_experts, kernel_init=_router_init, name="out")(pooled)
        if self.routing == "sigmoid_linear":
            return nn.sigmoid(logits)
        return nn.softmax(logits / temperature)


def _expert_gain(num_experts: int, routing: str) -> float:
    """What experts must be scaled by so that their even mix has the variance the layer wants.

    K independent experts, each with coefficient c, mix to K c^2 times an expert's variance.
    """
    coefficient = 0.5 if routing == "sigmoid_linear" else 1.0 / num_experts
    return (num_experts * coefficient**2) ** -0.5


class DynamicConv(nn.Module):
    """A convolution whose kernel is, for each sample, the routed mix of `num_experts` kernels.

    `padding` is that of `layers.conv_padding`. The bias, where there is one, is one for all
    experts. `kernel_init(groups, gain)` is the distribution of a static kernel times `gain`.
    """

    features: int
    kernel_size: int = 1
    strides: int = 1
    groups: int = 1
    num_experts: int = 4
    routing: str = "softmax_mlp"
    routing_ratio: float = 0.25
    form: str = "auto"
    padding: str = "symmetric"
    use_bias: bool = False
    kernel_init: Callable[[int, float], Normal] = he_fan_out
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Parts, temperature: jax.Array | float = 1.0) -> jax.Array:
        """`[N, H, W, C]`, or such parts of the channels, to `[N, H', W', features]`."""
        router = Router(self.num_experts, self.routing, self.routing_ratio, name="routing")
        parts, size = x if isinstance(x, tuple) else (x,), self.kernel_size
        channels = sum(part.shape[-1] for part in parts)
        shape = (self.num_experts, size, size, channels // self.groups, self.features)
        init = self.kernel_init(self.groups, _expert_gain(self.num_experts, self.routing))
        y = dynamic_conv(
            tuple(part.astype(self.dtype) for part in parts),
            router(x, temperature),
            self.param("experts", init, shape),
            strides=self.strides,
            padding=conv_padding(self.padding, parts[0], size, self.strides),
            groups=self.groups,
            form=self.form,
        )
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y
