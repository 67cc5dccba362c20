"""All that a training run carries from step to step, and all that a checkpoint holds."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """`step` counts the updates made; the position in the data is the same number."""

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    # {"params": ..., "batch_stats": ...}, averaged.
    ema: Any


def create_state(
    variables: Mapping[str, Any], optimizer: optax.GradientTransformation
) -> TrainState:
    """A state at step 0; may be traced. A network without batch norm has `{}` as statistics."""
    variables = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
        # A copy: the step donates the state, and one buffer cannot be given away twice.
        ema=jax.tree.map(jnp.array, variables),
    )
