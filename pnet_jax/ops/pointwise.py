"""The dynamic 1x1 convolution, in the form that each backend is good at."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from pnet_jax.ops import pointwise_tpu

Parts = tuple[jax.Array, ...]

# The scope of the products that mix experts, by which a trace of a network tells them from others.
MIXING = "mixing"

# Below this the samples do not fill the lanes, and the kernels would multiply zeros.
_MIN_SAMPLES = 64


def dynamic_pointwise(parts: Parts, coefficients: jax.Array, experts: jax.Array) -> jax.Array:
    """`[N, H, W, C]`, `[N, K]` and `[K, C, O]`, all of one dtype, to `[N, H, W, O]`.

    The C channels come in one or more `parts`. On TPU the samples stay where they are: each device
    works on its part of a batch that is split over the mesh set by
    `jax.sharding.use_abstract_mesh`, if there is one.
    """
    return _on_each_device(_dynamic_pointwise)(parts, coefficients, experts)


def mixed_matmul(parts: Parts, coefficients: jax.Array, experts: jax.Array) -> jax.Array:
    """As `dynamic_pointwise`: each sample's kernel is mixed, then multiplied with its pixels."""
    x = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
    count, channels, features = experts.shape
    with jax.named_scope(MIXING):
        kernels = (coefficients @ experts.reshape(count, -1)).reshape(-1, channels, features)
    # With the pixels as one axis XLA transposes nothing.
    pixels = x.reshape(x.shape[0], -1, channels)
    return (pixels @ kernels).reshape(*x.shape[:3], features)


@jax.custom_vjp
def _dynamic_pointwise(parts: Parts, coefficients: jax.Array, experts: jax.Array) -> jax.Array:
    arguments = (parts, coefficients, experts)
    if not _for_kernels(parts[0].shape[0], experts):
        return mixed_matmul(*arguments)
    return lax.platform_dependent(*arguments, tpu=in_lanes, default=mixed_matmul)


def _forward_saving(*arguments: Any) -> Any:
    return _dynamic_pointwise(*arguments), arguments


def _backward(saved: Any, dy: jax.Array) -> Any:
    def gradients(function: Callable[..., jax.Array], *operands: Any) -> Any:
        *arguments, dy = operands
        return jax.vjp(function, *arguments)[1](dy)

    other = functools.partial(gradients, mixed_matmul)
    if not _for_kernels(dy.shape[0], saved[-1]):
        return other(*saved, dy)
    tpu = functools.partial(gradients, in_lanes)
    return lax.platform_dependent(*saved, dy, tpu=tpu, default=other)


_dynamic_pointwise.defvjp(_forward_saving, _backward)


def _for_kernels(samples: int, experts: jax.Array) -> bool:
    """Whether the TPU kernels are the better choice on a TPU."""
    return samples >= _MIN_SAMPLES and pointwise_tpu.fit(experts)


def in_lanes(
    parts: Parts, coefficients: jax.Array, experts: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """As `dynamic_pointwise`, by the TPU kernels; `interpret` runs them without a TPU.

    The transposes cost nothing where XLA keeps the samples in the lanes anyway.
    """
    samples, height, width, _ = parts[0].shape
    rows = tuple(x.transpose(1, 2, 3, 0).reshape(height * width, -1, samples) for x in parts)
    y = pointwise_tpu.pointwise(rows, coefficients, experts, interpret)
    y = y.reshape(height, width, -1, samples).transpose(3, 0, 1, 2)
    # Or XLA moves the readers' conversion to float32 up to the kernel and stores its result.
    return lax.optimization_barrier(y)


def _on_each_device(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The function on each device's samples, as XLA cannot split kernels."""

    def call(parts: Parts, coefficients: jax.Array, experts: jax.Array) -> jax.Array:
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty or mesh.size == 1 or coefficients.shape[0] % mesh.size:
            return function(parts, coefficients, experts)
        by_sample, whole = PartitionSpec(mesh.axis_names), PartitionSpec()
        split = jax.shard_map(
            function,
            mesh=mesh,
            in_specs=(by_sample, by_sample, whole),
            out_specs=by_sample,
            check_vma=False,
        )
        return split(parts, coefficients, experts)

    return call
