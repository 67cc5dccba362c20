"""The compiled training and evaluation steps."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import NamedSharding

from pnet_jax.augment.normalize import normalize
from pnet_jax.config import Config
from pnet_jax.training.accumulation import accumulate, interleave
from pnet_jax.training.augmentation import policy_of
from pnet_jax.training.ema import update_ema
from pnet_jax.training.loss import (
    in_top_k,
    smoothed_cross_entropy,
    targets_of,
    weighted_cross_entropy,
)
from pnet_jax.training.schedules import temperature_at
from pnet_jax.training.state import TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
CompilerOptions = dict[str, int] | None
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
EvalStep = Callable[[Any, jax.Array, Batch], Metrics]


@dataclasses.dataclass(frozen=True)
class Shardings:
    """Where a run keeps the state's leaves, a batch's samples, and what is whole on all devices."""

    state: TrainState
    batch: NamedSharding
    whole: NamedSharding


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    config: Config,
    *,
    shardings: Shardings,
    steps_per_epoch: float,
    compiler_options: CompilerOptions = None,
) -> TrainStep:
    """A jitted `(state, batch) -> (state, metrics)` that donates the state.

    The batch holds `image` `[B, S, S, 3]` uint8, `label` `[B]` int32 and `weight` `[B]` float32;
    the metrics are scalars of this step. All randomness comes from (config.seed, state.step).
    """
    augment = policy_of(config)

    part_model = model
    if config.accumulate_steps > 1 and config.model.bn_groups > 1:
        # A part has its share of the batch's groups.
        part_model = model.clone(bn_groups=config.model.bn_groups // config.accumulate_steps)
    runs = interleave(
        config,
        shardings.batch.mesh.size,
        batch_norm=bool(jax.tree.leaves(shardings.state.batch_stats)),
    )

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        augment_key, dropout_key = jax.random.split(key)
        with _on_mesh(shardings):
            images, share = augment(batch["image"], augment_key, model.dtype)
        temperature = temperature_at(
            state.step, config.temperature, steps_per_epoch=steps_per_epoch
        )
        total_weight = jnp.maximum(batch["weight"].sum(), 1.0)

        def loss_fn(params: Any, inputs: Any, dropout_key: jax.Array) -> Any:
            logits, updates = part_model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                inputs["image"],
                train=True,
                temperature=temperature,
                mutable=["batch_stats"],
                rngs={"dropout": dropout_key},
            )
            losses = weighted_cross_entropy(
                logits, inputs["targets"], config.optimizer.label_smoothing
            )
            correct = in_top_k(logits, inputs["label"], 1) * inputs["weight"]
            return losses.sum() / total_weight, (correct.sum(), updates)

        gradient_fn = jax.value_and_grad(loss_fn, has_aux=True)
        # Gather sharded parameters once, here, instead of at each of their uses.
        gathered = jax.lax.with_sharding_constraint(state.params, shardings.whole)
        targets = targets_of(batch["label"], batch["weight"], share)
        inputs = batch | {"image": images, "targets": targets}
        with _on_mesh(shardings):
            if config.accumulate_steps == 1:
                (loss, aux), gradients = gradient_fn(gathered, inputs, dropout_key)
            else:
                (loss, aux), gradients = accumulate(
                    gradient_fn,
                    gathered,
                    inputs,
                    dropout_key,
                    steps=config.accumulate_steps,
                    runs=runs,
                    batch=shardings.batch,
                )
        # Each device goes on with its own share.
        gradients = jax.lax.with_sharding_constraint(gradients, shardings.state.params)
        correct, updates = aux
        # Each part has moved the statistics of before the step.
        updates = jax.tree.map(lambda leaf: leaf / config.accumulate_steps, updates)
        deltas, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, deltas)
        batch_stats = updates.get("batch_stats", {})
        ema = update_ema(
            state.ema,
            {"params": params, "batch_stats": batch_stats},
            state.step,
            config.ema_decay,
        )
        metrics = {
            "loss": loss,
            "top1": correct / total_weight,
            "grad_norm": optax.tree.norm(gradients),
            "param_norm": optax.tree.norm(params),
            "temperature": temperature,
        }
        return TrainState(state.step + 1, params, batch_stats, opt_state, ema), metrics

    return jax.jit(
        train_step,
        in_shardings=(shardings.state, shardings.batch),
        out_shardings=(shardings.state, shardings.whole),
        donate_argnames=("state",),
        compiler_options=compiler_options,
    )


def make_eval_step(
    model: nn.Module,
    config: Config,
    *,
    shardings: Shardings,
    steps_per_epoch: float,
    compiler_options: CompilerOptions = None,
) -> EvalStep:
    """A jitted `(variables, step, batch) -> sums` over the batch: `count`, `top1`, `top5`, `loss`.

    Examples of weight 0 count nowhere, and those of label -1 (undecodable images) in `count` alone.
    """

    def eval_step(variables: Any, step: jax.Array, batch: Batch) -> Metrics:
        variables = jax.lax.with_sharding_constraint(variables, shardings.whole)
        temperature = temperature_at(step, config.temperature, steps_per_epoch=steps_per_epoch)
        images = normalize(batch["image"], model.dtype, config.data.normalization)
        with _on_mesh(shardings):
            logits: Any = model.apply(variables, images, train=False, temperature=temperature)
        labels, weight = batch["label"], batch["weight"]
        losses = smoothed_cross_entropy(logits, jnp.maximum(labels, 0), 0.0)
        seen = weight > 0
        return {
            "count": jnp.sum(seen, dtype=jnp.int32),
            "top1": jnp.sum(in_top_k(logits, labels, 1) & seen, dtype=jnp.int32),
            "top5": jnp.sum(in_top_k(logits, labels, 5) & seen, dtype=jnp.int32),
            "loss": jnp.sum(losses * weight * (labels >= 0)),
        }

    return jax.jit(
        eval_step,
        in_shardings=(shardings.state.ema, shardings.whole, shardings.batch),
        out_shardings=shardings.whole,
        compiler_options=compiler_options,
    )


def _on_mesh(shardings: Shardings) -> Any:
    """Tells operations that XLA cannot split by itself, TPU kernels, which mesh they are on."""
    return jax.sharding.use_abstract_mesh(shardings.whole.mesh.abstract_mesh)
