"""From a run's work directory to a weights file, and from such a file to a place to start from."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
from flax import traverse_util

from pnet_jax import workdir as workdirs
from pnet_jax.checkpoint.manager import Checkpoints
from pnet_jax.config import CheckpointConfig
from pnet_jax.convert.files import DESCRIPTION, read_weights, write_weights
from pnet_jax.convert.record import write_record
from pnet_jax.convert.source import Source, open_source
from pnet_jax.convert.state_dict import StateDict, from_torch, to_torch
from pnet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Exported:
    """What `export` wrote."""

    path: pathlib.Path
    model: str
    step: int
    tensors: int


def export(
    workdir: pathlib.Path,
    out: pathlib.Path,
    *,
    step: int | None = None,
    weights: str = "ema",
    verified: bool = True,
) -> Exported:
    """Writes the weights of a checkpoint under their published PyTorch names.

    A network with parallel branches is written as the plain network that they merge into.

    Args:
      workdir: of the run.
      out: ends in `.safetensors` or `.pth`.
      step: of the checkpoint; None takes the best one.
      weights: "ema", the averages that evaluation uses, or "raw".
      verified: reads the state dict back, as the Flax network's variables, bit by bit the same.

    Raises:
      UserError: if there is no such run, checkpoint or file type, or the way back fails.
    """
    source = open_source(workdir, step=step, weights=weights)
    state_dict = to_torch(source.model, source.variables)
    if verified:
        _require_way_back(source, state_dict)
    metadata = {"model": source.model, "step": str(source.step), "weights": weights}
    write_weights(out, state_dict, metadata | {DESCRIPTION: json.dumps(source.describe())})
    checked = "read back bit by bit" if verified else None
    write_record(out, source.describe() | {"verified": checked})
    return Exported(out, source.model, source.step, len(state_dict))


def _require_way_back(source: Source, state_dict: StateDict) -> None:
    """Raises UserError unless the state dict gives the variables that it was made of."""
    restored = traverse_util.flatten_dict(
        from_torch(source.model, state_dict, **source.fields), keep_empty_nodes=True
    )
    for path, leaf in traverse_util.flatten_dict(source.variables, keep_empty_nodes=True).items():
        if not np.array_equal(restored[path], leaf):
            raise UserError(f"The way back from PyTorch changes {'/'.join(path)}; nothing written.")


def import_weights(
    weights: pathlib.Path, model: str, out: pathlib.Path, **overrides: Any
) -> dict[str, Any]:
    """Turns a PyTorch file into a checkpoint at `out` for `config.init_from`, and returns its
    variables.

    Raises:
      UserError: if the file does not fit the model exactly, or `out` already holds something.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; give --out a new directory.")
    variables = from_torch(model, read_weights(weights), **overrides)
    out.mkdir(parents=True, exist_ok=True)
    config = {"model": {"name": model, **overrides}}
    (out / workdirs.CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    with Checkpoints(out, CheckpointConfig()) as checkpoints:
        checkpoints.save(0, variables | {"ema": variables}, None)
    return variables
