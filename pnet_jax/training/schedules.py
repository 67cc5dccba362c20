"""Learning rate and routing temperature as functions of the step."""

import jax
import jax.numpy as jnp
import optax

from pnet_jax.config import OptimizerConfig, TemperatureConfig


def learning_rate_schedule(
    config: OptimizerConfig, *, steps_per_epoch: float, total_steps: int
) -> optax.Schedule:
    """Linear from 0 to the peak, then half a cosine to the end value at `total_steps`."""
    warmup_steps = min(round(config.warmup_epochs * steps_per_epoch), total_steps)
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=max(total_steps, warmup_steps + 1),
        end_value=config.end_learning_rate,
    )


def temperature_at(
    step: jax.Array, config: TemperatureConfig, *, steps_per_epoch: float
) -> jax.Array:
    """The routing temperature: linear from `start` to `end` over `epochs`, then constant."""
    steps = config.epochs * steps_per_epoch
    share = jnp.clip(step / steps, 0.0, 1.0) if steps > 0 else jnp.ones(())
    return config.start + (config.end - config.start) * share
