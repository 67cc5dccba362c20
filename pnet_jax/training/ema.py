"""The exponential moving average of parameters and running statistics, which evaluation uses."""

from typing import Any

import jax
import jax.numpy as jnp


def update_ema(average: Any, value: Any, step: jax.Array, decay: float) -> Any:
    """decay average + (1 - decay) value.

    A young average forgets faster: at step t, from 0 up, the decay is at most (1 + t) / (10 + t).
    """
    ramp = (1.0 + step) / (10.0 + step)
    rate = 1.0 - jnp.minimum(decay, ramp)
    return jax.tree.map(lambda old, new: old + rate * (new - old), average, value)
