"""What training and evaluation of a configuration share: data, mesh, plan and program."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from pnet_jax.config import Config
from pnet_jax.data import emoji
from pnet_jax.data.datasets import Dataset, Records, open_dataset
from pnet_jax.data.pipeline import Reading, eval_batches
from pnet_jax.errors import UserError
from pnet_jax.parallel.mesh import check_batch, make_mesh, to_devices
from pnet_jax.plan import Plan
from pnet_jax.program import Program, build_model
from pnet_jax.training.augmentation import policy_of


@dataclasses.dataclass(frozen=True)
class Run:
    """A configuration brought together with its data and the devices; nothing is computed yet."""

    config: Config
    mesh: Mesh
    dataset: Dataset
    train_records: Records
    eval_records: Records
    plan: Plan
    program: Program

    @classmethod
    def of(cls, config: Config) -> "Run":
        """Raises UserError if configuration, data and devices do not fit each other."""
        use_compilation_cache(config.compilation_cache_dir)
        mesh = make_mesh(config.mesh)
        check_batch("eval_batch_size", config.eval_batch_size, mesh)
        # A misspelt network or augmentation should not wait for data to be rendered.
        build_model(config)
        policy_of(config)
        dataset = open_data(config)
        train_records = dataset.split(config.data.train_split)
        plan = Plan.of(config, len(train_records))
        return cls(
            config=config,
            mesh=mesh,
            dataset=dataset,
            train_records=train_records,
            eval_records=dataset.split(config.data.eval_split),
            plan=plan,
            program=Program.of(
                config,
                mesh,
                steps_per_epoch=plan.steps_per_epoch,
                total_steps=plan.total_steps,
            ),
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
            num_workers=data.num_workers,
            prefetch_batches=data.prefetch_batches,
        )

    def eval_stream(self) -> Iterator[dict[str, Any]]:
        """The evaluation split once, on the devices."""
        reading = self.reading(self.config.eval_batch_size)
        batches = eval_batches(self.eval_records, reading, share=self.config.data.eval_crop)
        return to_devices(batches, self.program.shardings.batch)


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
