"""A small ParameterNet with its compiled training step, for the tests of steps."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pnet_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TemperatureConfig
from pnet_jax.models.ghostnet import STAGES_300M, GhostNet
from pnet_jax.parallel.mesh import batch_sharding, replicated
from pnet_jax.parallel.sharding import parse_rules, plan_sharding
from pnet_jax.training.optimizer import make_optimizer
from pnet_jax.training.state import TrainState, create_state
from pnet_jax.training.step import Shardings, make_train_step

Batch = dict[str, np.ndarray]

NUM_CLASSES = 10
STEPS_PER_EPOCH = 2.5
CONFIG = Config(
    seed=3,
    global_batch_size=16,
    ema_decay=0.9,
    model=ModelConfig(dtype="float32"),
    data=DataConfig(num_classes=NUM_CLASSES, image_size=16),
    # An epsilon this large keeps rounding from deciding the sign of a step.
    optimizer=OptimizerConfig(epsilon=1e-4, weight_decay=0.02),
    temperature=TemperatureConfig(start=30.0, end=1.0, epochs=2.0),
)


@dataclasses.dataclass(frozen=True)
class Trainer:
    """A compiled step and all it needs; a new state is made for each use, for a step donates it."""

    model: GhostNet
    shardings: Shardings
    train_step: Callable[..., Any]
    variables: Any
    optimizer: Any

    def new_state(self) -> TrainState:
        variables = jax.tree.map(jnp.asarray, self.variables)
        return jax.device_put(create_state(variables, self.optimizer), self.shardings.state)

    def run(self, batch: Batch, steps: int = 1) -> tuple[TrainState, list[dict[str, Any]]]:
        """The state and each step's metrics on the host. Nothing travels during the steps."""
        state, history = self.new_state(), []
        on_devices = jax.device_put(batch, self.shardings.batch)
        with jax.transfer_guard("disallow"):
            for _ in range(steps):
                state, metrics = self.train_step(state, on_devices)
                history.append(metrics)
        return state, jax.device_get(history)


def trainer(mesh: Mesh, variables: Any, config: Config = CONFIG, **fields: Any) -> Trainer:
    model = network(**fields)
    optimizer = make_optimizer(CONFIG.optimizer, lambda step: 0.01)
    shapes = jax.eval_shape(lambda v: create_state(v, optimizer), variables)
    plan = plan_sharding(mesh, shapes, shapes.params, parse_rules(config.sharding))
    shardings = Shardings(plan.state, batch_sharding(mesh), replicated(mesh))
    step = make_train_step(
        model, optimizer, config, shardings=shardings, steps_per_epoch=STEPS_PER_EPOCH
    )
    return Trainer(model, shardings, step, variables, optimizer)


def network(**fields: Any) -> GhostNet:
    """One bottleneck between stem and head, all dynamic."""
    stages = STAGES_300M[:1]
    fields = {"drop_rate": 0.1} | fields
    return GhostNet(NUM_CLASSES, stages=stages, width=1.0, num_experts=2, **fields)
