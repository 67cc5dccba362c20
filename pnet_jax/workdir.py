"""A run's work directory: which configuration it belongs to."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from pnet_jax.config import MAY_CHANGE, Config
from pnet_jax.errors import UserError
from pnet_jax.fields import flatten

CONFIG_FILE = "config.json"
CLASSES_FILE = "classes.json"
INTERRUPTED_FILE = "interrupted.json"


def check_is_path(name: str, value: str) -> None:
    """Raises UserError if `value`, of the flag `name`, is an address such as gs://bucket/run."""
    if "://" in value:
        raise UserError(
            f"{name}={value} is an address, and only file systems will do; mount the bucket or a "
            f"shared file system (docs/tpu.md) and pass the path there."
        )


def claim(workdir: pathlib.Path, config: Config) -> None:
    """Writes the configuration into a new work directory, or checks that an old one has the same.

    Raises:
      UserError: if the directory belongs to another configuration (the sentence shows the differing
        fields) or cannot be written.
    """
    path = workdir / CONFIG_FILE
    if path.exists():
        there, here = flatten(read_config(workdir)), flatten(config.to_dict())
        differences = [
            f"config.{key}: {there.get(key)!r} there, {here.get(key)!r} here"
            for key in sorted(there.keys() | here.keys())
            if there.get(key) != here.get(key) and key not in MAY_CHANGE
        ]
        if differences:
            listed = "\n  ".join(differences)
            raise UserError(
                f"The work directory {workdir} belongs to a run with another configuration; take "
                f"a new --workdir, or the old values:\n  {listed}"
            )
    if jax.process_index() != 0:
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        _replace(path, json.dumps(config.to_dict(), indent=2))
    except OSError as error:
        raise UserError(
            f"The work directory {workdir} cannot be written ({error.strerror}); choose another "
            f"--workdir."
        ) from error


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """The configuration of the run in `workdir` as nested dictionaries.

    Raises:
      UserError: if no run ever started there, or the file cannot be read.
    """
    path = workdir / CONFIG_FILE
    if not path.exists():
        raise UserError(
            f"{workdir} is not the work directory of a run (it has no {CONFIG_FILE}); name the "
            f"--workdir that training was started with."
        )
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise UserError(
            f"{path} cannot be read as a configuration; put back the file that the run wrote, or "
            f"choose another --workdir."
        )
    return config


def write_class_names(workdir: pathlib.Path, names: Sequence[str]) -> None:
    """Keeps the names of the head's classes, by index, for the runs that start from this one."""
    if jax.process_index() != 0:
        return
    path = workdir / CLASSES_FILE
    _replace(path, json.dumps(list(names), indent=0, ensure_ascii=False))


def read_class_names(workdir: pathlib.Path) -> list[str]:
    """The names of the classes of the run in `workdir`.

    Raises:
      UserError: if it kept none (converted weights, say), or the file cannot be read.
    """
    try:
        names = json.loads((workdir / CLASSES_FILE).read_text())
    except (OSError, ValueError):
        names = None
    if not isinstance(names, list):
        raise UserError(
            f"{workdir} does not tell its classes (it has no readable {CLASSES_FILE}); write one, "
            f"a JSON list of names in the head's order, or take --config.head=fresh."
        )
    return names


def write_interrupted(
    workdir: pathlib.Path, step: int, metrics: Sequence[Mapping[str, Any]]
) -> None:
    """Keeps the metrics of the steps up to a save at `step` that no record tells of yet."""
    if jax.process_index() == 0:
        content = [{name: float(value) for name, value in each.items()} for each in metrics]
        _replace(workdir / INTERRUPTED_FILE, json.dumps({"step": step, "metrics": content}))


def read_interrupted(workdir: pathlib.Path, step: int) -> list[dict[str, float]]:
    """What was kept with the save at `step`: nothing if the save was one of the plan's."""
    try:
        content = json.loads((workdir / INTERRUPTED_FILE).read_text())
    except (OSError, ValueError):
        return []
    return content["metrics"] if content["step"] == step else []


def _replace(path: pathlib.Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text + "\n")
    temporary.replace(path)
