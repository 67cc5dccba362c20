"""Gradients of a batch in parts, for batches that do not fit into memory at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from pnet_jax.config import Config
from pnet_jax.errors import UserError

# `(params, inputs, key) -> ((loss, aux), gradients)`.
GradientFn = Callable[[Any, Any, jax.Array], tuple[tuple[jax.Array, Any], Any]]


def interleave(config: Config, num_devices: int, *, batch_norm: bool) -> int:
    """Into how many runs of images a batch is cut, which its parts take in turn.

    A group of batch norm is never cut, so that its statistics are those of the whole batch's
    groups; without such groups every device has a share of each part.

    Raises:
      UserError: if the parts cannot have whole groups, or whole shares of all devices.
    """
    steps, groups = config.accumulate_steps, config.model.bn_groups
    if config.global_batch_size % (steps * num_devices):
        raise UserError(
            f"config.global_batch_size = {config.global_batch_size} cannot be split over "
            f"config.accumulate_steps = {steps} and {num_devices} devices; take a multiple of "
            f"{steps * num_devices}."
        )
    if not batch_norm or config.model.bn_statistics == "running":
        return steps * num_devices
    if groups % steps:
        raise UserError(
            f"config.accumulate_steps = {steps} takes images of a batch-norm group apart; set "
            f"config.model.bn_groups = {groups} to a multiple of {steps}."
        )
    return groups


def accumulate(
    gradient_fn: GradientFn,
    params: Any,
    inputs: Any,
    key: jax.Array,
    *,
    steps: int,
    runs: int,
    batch: NamedSharding,
) -> tuple[tuple[jax.Array, Any], Any]:
    """What `gradient_fn` returns for the whole batch, computed in `steps` parts one by one.

    Args:
      gradient_fn: whose results for the parts of a batch add up to those for the whole.
      params: whole on every device.
      inputs: arrays `[B, ...]`.
      key: split over the parts.
      steps: number of parts.
      runs: from `interleave`.
      batch: the sharding of a batch, and of each part.

    Returns:
      The sums of loss, aux and gradients over the parts.
    """

    def parted(array: jax.Array) -> jax.Array:
        """`[B, ...]` to `[steps, B / steps, ...]`: part i has the runs i, i + steps, ..."""
        rest = array.shape[1:]
        parts = array.reshape(runs // steps, steps, -1, *rest).swapaxes(0, 1)
        parts = parts.reshape(steps, -1, *rest)
        spec = PartitionSpec(None, *batch.spec)
        return jax.lax.with_sharding_constraint(parts, NamedSharding(batch.mesh, spec))

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient_fn(params, *part)), None

    parts = (jax.tree.map(parted, inputs), jax.random.split(key, steps))
    first = jax.tree.map(lambda array: array[0], parts)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(gradient_fn, params, *first)
    )
    return jax.lax.scan(add, zeros, parts)[0]
