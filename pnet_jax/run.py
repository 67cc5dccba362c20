"""What training and evaluation of a configuration share: data, network, mesh, shardings, steps."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from pnet_jax.config import Config, ModelConfig
from pnet_jax.data import emoji
from pnet_jax.data.datasets import Dataset, Records, open_dataset
from pnet_jax.data.pipeline import Reading, eval_batches
from pnet_jax.errors import UserError
from pnet_jax.models import create_model, has_batch_norm, list_models
from pnet_jax.parallel.mesh import batch_sharding, check_batch, make_mesh, replicated, to_devices
from pnet_jax.parallel.sharding import tree_sharding
from pnet_jax.plan import Plan
from pnet_jax.training.optimizer import make_optimizer
from pnet_jax.training.schedules import learning_rate_schedule
from pnet_jax.training.state import TrainState, create_state
from pnet_jax.training.step import Shardings


@dataclasses.dataclass(frozen=True)
class Run:
    """A configuration brought together with its data and the devices; nothing is computed yet."""

    config: Config
    mesh: Mesh
    dataset: Dataset
    train_records: Records
    eval_records: Records
    plan: Plan
    model: nn.Module
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    # ShapeDtypeStructs with the shardings of `shardings.state`.
    state_shape: TrainState
    shardings: Shardings

    @classmethod
    def of(cls, config: Config) -> "Run":
        """Raises UserError if configuration, data and devices do not fit each other."""
        use_compilation_cache(config.compilation_cache_dir)
        mesh = make_mesh(config.mesh)
        check_batch("eval_batch_size", config.eval_batch_size, mesh)
        model = build_model(config)
        dataset = open_data(config)
        train_records = dataset.split(config.data.train_split)
        plan = Plan.of(config, len(train_records))
        schedule = learning_rate_schedule(
            config.optimizer,
            steps_per_epoch=plan.steps_per_epoch,
            total_steps=plan.total_steps,
        )
        optimizer = make_optimizer(config.optimizer, schedule)
        state_shape = jax.eval_shape(functools.partial(_fresh, model=model, optimizer=optimizer))
        shardings = Shardings(
            state=tree_sharding(mesh, state_shape),
            batch=batch_sharding(mesh),
            whole=replicated(mesh),
        )
        state_shape = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            state_shape,
            shardings.state,
        )
        return cls(
            config=config,
            mesh=mesh,
            dataset=dataset,
            train_records=train_records,
            eval_records=dataset.split(config.data.eval_split),
            plan=plan,
            model=model,
            schedule=schedule,
            optimizer=optimizer,
            state_shape=state_shape,
            shardings=shardings,
        )

    def reading(self, global_batch_size: int) -> Reading:
        """How this process takes its share of batches of that size."""
        data = self.config.data
        return Reading(
            global_batch_size=global_batch_size,
            image_size=data.image_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_threads=data.num_threads,
            prefetch_batches=data.prefetch_batches,
        )

    def eval_stream(self) -> Iterator[dict[str, Any]]:
        """The evaluation split once, on the devices."""
        reading = self.reading(self.config.eval_batch_size)
        batches = eval_batches(self.eval_records, reading, share=self.config.data.eval_crop)
        return to_devices(batches, self.shardings.batch)


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


def open_data(config: Config) -> Dataset:
    """The data set of a configuration. Raises UserError if its classes do not fit the head."""
    data = config.data
    dataset = open_dataset(data.name, data.data_dir, label=data.label, build_demo=emoji.build)
    if len(dataset.class_names) != data.num_classes:
        raise UserError(
            f"The data set {data.name} has {len(dataset.class_names)} classes under "
            f"{data.label!r}, but "
            f"config.data.num_classes = {data.num_classes}; set it to {len(dataset.class_names)}."
        )
    return dataset


def use_compilation_cache(directory: str) -> None:
    """Keeps compiled programs in `directory` between runs; an empty name keeps none."""
    if directory:
        path = str(pathlib.Path(directory).expanduser())
        jax.config.update("jax_compilation_cache_dir", path)
        # Half a second of compiling and up; below that the disk is no faster.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
