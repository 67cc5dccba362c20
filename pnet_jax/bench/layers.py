"""Every form of the dynamic convolution in every layer shape of a network."""

import dataclasses
import statistics
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from pnet_jax.bench.timing import interleaved
from pnet_jax.models import create_model
from pnet_jax.models.dynamic import DynamicConv
from pnet_jax.ops.dynamic_conv import dynamic_conv
from pnet_jax.parallel.compiling import compiler_options

FORMS = ("auto", "grouped", "experts", "matmul", "shift", "patches")


@dataclasses.dataclass(frozen=True)
class Layer:
    """The shape of a dynamic convolution; `count` layers of the network have it."""

    kernel_size: int
    strides: int
    groups: int
    side: int
    channels: int
    features: int
    num_experts: int
    count: int = 1

    def __str__(self) -> str:
        kind = "depthwise " if self.groups > 1 else ""
        stride = f" s{self.strides}" if self.strides > 1 else ""
        size = f"{self.kernel_size}x{self.kernel_size}"
        return f"{kind}{size}{stride}, {self.side} px, {self.channels}->{self.features}"


def layers_of(model_name: str, image_size: int) -> list[Layer]:
    """The distinct dynamic convolutions of a network, in the order of their first appearance."""
    found: list[Layer] = []

    def record(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if isinstance(module, DynamicConv) and context.method_name == "__call__":
            parts = args[0] if isinstance(args[0], tuple) else (args[0],)
            layer = Layer(
                kernel_size=module.kernel_size,
                strides=module.strides,
                groups=module.groups,
                side=parts[0].shape[1],
                channels=sum(part.shape[-1] for part in parts),
                features=module.features,
                num_experts=module.num_experts,
            )
            found.append(layer)
        return call(*args, **kwargs)

    model = create_model(model_name)
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    with nn.intercept_methods(record):
        jax.eval_shape(model.init, jax.random.key(0), images)
    return [dataclasses.replace(layer, count=found.count(layer)) for layer in dict.fromkeys(found)]


def time_layer(layer: Layer, *, batch_size: int, rounds: int) -> Iterator[tuple[str, float, float]]:
    """For each form that can compute the layer: its name, and the median seconds of a forward pass
    and of one with all gradients of the sum of squares.
    """
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (batch_size, layer.side, layer.side, layer.channels))
    coefficients = jax.random.uniform(keys[1], (batch_size, layer.num_experts))
    size, inputs = layer.kernel_size, layer.channels // layer.groups
    experts = jax.random.normal(keys[2], (layer.num_experts, size, size, inputs, layer.features))
    operands = (x, coefficients, experts)
    functions = {}
    for form in FORMS:
        forward, both = _compiled(layer, form, operands)
        if forward is not None:
            functions[f"{form} forward"], functions[f"{form} both"] = forward, both
    secs = interleaved(functions, rounds=rounds)
    for form in FORMS:
        if f"{form} both" in secs:
            forward_secs, both_secs = (secs[f"{form} {kind}"] for kind in ("forward", "both"))
            yield form, statistics.median(forward_secs), statistics.median(both_secs)


def _compiled(layer: Layer, form: str, operands: tuple[jax.Array, ...]) -> tuple[Any, Any]:
    """None and None if the form cannot compute this layer."""

    def forward(*operands: jax.Array) -> jax.Array:
        return dynamic_conv(
            *operands,
            strides=layer.strides,
            padding=(layer.kernel_size - 1) // 2,
            groups=layer.groups,
            form=form,
        )

    def both(*operands: jax.Array) -> Any:
        def loss(*operands: jax.Array) -> jax.Array:
            return jnp.sum(forward(*operands) ** 2)

        return jax.value_and_grad(loss, argnums=(0, 1, 2))(*operands)

    try:
        compiled = [
            jax.jit(f, compiler_options=compiler_options()).lower(*operands).compile()
            for f in (forward, both)
        ]
    except ValueError:
        return None, None
    return (lambda: compiled[0](*operands)), (lambda: compiled[1](*operands))
