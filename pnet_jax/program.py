"""The compiled steps of a configuration on a mesh, and the state they carry; needs no data."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from pnet_jax.config import Config, ModelConfig
from pnet_jax.errors import UserError
from pnet_jax.models import create_model, has_batch_norm, list_models
from pnet_jax.parallel.compiling import compiler_options
from pnet_jax.parallel.mesh import batch_sharding, replicated
from pnet_jax.parallel.sharding import ShardingPlan, parse_rules, plan_sharding
from pnet_jax.training.optimizer import make_optimizer
from pnet_jax.training.schedules import learning_rate_schedule
from pnet_jax.training.state import TrainState, create_state
from pnet_jax.training.step import (
    Batch,
    EvalStep,
    Shardings,
    TrainStep,
    make_eval_step,
    make_train_step,
)


@dataclasses.dataclass(frozen=True)
class Program:
    """What training, evaluation and the ahead-of-time compiler build alike."""

    config: Config
    steps_per_epoch: float
    model: nn.Module
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    shardings: Shardings
    sharding_plan: ShardingPlan
    # ShapeDtypeStructs with the shardings of `shardings.state`.
    state_shape: TrainState

    @classmethod
    def of(
        cls, config: Config, mesh: Mesh, *, steps_per_epoch: float, total_steps: int
    ) -> "Program":
        """Raises UserError if there is no such network."""
        model = build_model(config)
        schedule = learning_rate_schedule(
            config.optimizer, steps_per_epoch=steps_per_epoch, total_steps=total_steps
        )
        optimizer = make_optimizer(config.optimizer, schedule)
        shape = jax.eval_shape(functools.partial(_fresh, model=model, optimizer=optimizer))
        placed = plan_sharding(mesh, shape, shape.params, parse_rules(config.sharding))
        shardings = Shardings(
            state=placed.state, batch=batch_sharding(mesh), whole=replicated(mesh)
        )
        return cls(
            config=config,
            steps_per_epoch=steps_per_epoch,
            model=model,
            schedule=schedule,
            optimizer=optimizer,
            shardings=shardings,
            sharding_plan=placed,
            state_shape=jax.tree.map(_sharded, shape, shardings.state),
        )

    def train_step(self) -> TrainStep:
        """The jitted training step."""
        return make_train_step(
            self.model,
            self.optimizer,
            self.config,
            shardings=self.shardings,
            steps_per_epoch=self.steps_per_epoch,
            compiler_options=compiler_options(),
        )

    def eval_step(self) -> EvalStep:
        """The jitted evaluation step."""
        return make_eval_step(
            self.model,
            self.config,
            shardings=self.shardings,
            steps_per_epoch=self.steps_per_epoch,
            compiler_options=compiler_options(),
        )

    def compiled_train_step(self) -> TrainStep:
        """The training step, compiled before there is a batch."""
        step: Any = self.train_step()
        return step.lower(self.state_shape, self.batch_shape()).compile()

    def compiled_eval_step(self) -> EvalStep:
        """The evaluation step, compiled before there is a batch."""
        step: Any = self.eval_step()
        state, batch = self.state_shape, self.batch_shape(self.config.eval_batch_size)
        return step.lower(state.ema, state.step, batch).compile()

    def batch_shape(self, size: int | None = None) -> Batch:
        """A global batch as ShapeDtypeStructs, one of training if no size is given."""
        size, side = size or self.config.global_batch_size, self.config.data.image_size
        shapes = {
            "image": jax.ShapeDtypeStruct((size, side, side, 3), jnp.uint8),
            "label": jax.ShapeDtypeStruct((size,), jnp.int32),
            "weight": jax.ShapeDtypeStruct((size,), jnp.float32),
        }
        return {name: _sharded(shape, self.shardings.batch) for name, shape in shapes.items()}


def _sharded(leaf: Any, sharding: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _fresh(model: nn.Module, optimizer: optax.GradientTransformation) -> TrainState:
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    return create_state(variables, optimizer)


def build_model(config: Config) -> nn.Module:
    """The network of a configuration. Raises UserError if there is no such network."""
    return model_of(dataclasses.asdict(config.model), config.data.num_classes)


def model_of(fields: Mapping[str, Any], num_classes: int) -> nn.Module:
    """The network of a configuration's `model` fields. Raises UserError if there is none."""
    given = {key: value for key, value in fields.items() if value is not None}
    name, dtype = given.pop("name"), jnp.dtype(given.pop("dtype", "float32"))
    if name in list_models() and not has_batch_norm(name):
        for field in ("bn_groups", "bn_statistics"):
            default = getattr(ModelConfig, field)
            if given.pop(field, default) != default:
                raise UserError(
                    f"config.model.{field} is {fields[field]!r}, but {name} has no batch norm; "
                    f"leave it at {default!r}."
                )
    try:
        return create_model(name, num_classes=num_classes, dtype=dtype, **given)
    except ValueError as error:
        raise UserError(f"config.model: {error}") from error
