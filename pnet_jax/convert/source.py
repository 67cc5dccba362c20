"""What a conversion starts from: a checkpoint's network and variables, and all to be said of it."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from pnet_jax import workdir as workdirs
from pnet_jax.augment.normalize import NORMALIZATIONS
from pnet_jax.checkpoint.manager import Checkpoints
from pnet_jax.config import MAY_CHANGE, DataConfig, TemperatureConfig, flatten
from pnet_jax.convert.reparam import MERGES_INTO, merge_branches
from pnet_jax.errors import UserError
from pnet_jax.models import create_model, has_batch_norm, list_models


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """From an image file to the floats that the network takes."""

    image_size: int
    eval_crop: float  # the share of the shorter side that the central square has
    mean: tuple[float, ...]  # of RGB in [0, 255]
    std: tuple[float, ...]

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of `to_dict`."""
        return cls(
            int(said["image_size"]),
            float(said["eval_crop"]),
            tuple(said["mean"]),
            tuple(said["std"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything somebody needs who has only the converted file."""
        return dataclasses.asdict(self) | {
            "color": "RGB",
            "crop": "central square",
            "interpolation": "area where it shrinks, else bilinear",
            "range": "0 to 255",
        }


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint of a run, as it is converted."""

    workdir: pathlib.Path
    model: str
    fields: Mapping[str, Any]  # of the network, where they are not its own
    step: int
    weights: str
    variables: dict[str, Any]
    fingerprint: str
    classes: list[str] | None
    preprocessing: Preprocessing
    temperature: float  # of softmax routing, at the end of training

    @functools.cached_property
    def num_classes(self) -> int:
        """Outputs of the classifier."""
        params = self.variables["params"]
        head = params.get("classifier", params.get("head"))
        return int(head["bias"].shape[0])

    @functools.cached_property
    def network(self) -> nn.Module:
        """The Flax module that the variables belong to, computing in float32."""
        try:
            return create_model(self.model, num_classes=self.num_classes, **self.fields)
        except ValueError as error:
            raise UserError(f"{self.workdir / workdirs.CONFIG_FILE}: {error}") from error

    def describe(self) -> dict[str, Any]:
        """For `conversion.json` and for metadata inside of files."""
        return {
            "model": self.model,
            "fields": dict(self.fields),
            "num_classes": self.num_classes,
            "step": self.step,
            "weights": self.weights,
            "config_fingerprint": self.fingerprint,
            "temperature": self.temperature,
            "preprocessing": self.preprocessing.to_dict(),
            "classes": self.classes,
        }


def open_source(workdir: pathlib.Path, *, step: int | None, weights: str) -> Source:
    """Reads a checkpoint; a network with branches becomes the plain one that they merge into.

    Args:
      workdir: of the run.
      step: of the checkpoint; None takes the best one.
      weights: "ema", the averages that evaluation uses, or "raw".

    Raises:
      UserError: if there is no such run, network or checkpoint.
    """
    config = workdirs.read_config(workdir)
    fields = {key: value for key, value in _group(config, "model").items() if value is not None}
    name = str(fields.pop("name", ""))
    if name not in list_models():
        raise UserError(
            f"{workdir / workdirs.CONFIG_FILE} names no network of this project ({name!r}); "
            f"convert the directory of a run, or of from-torch."
        )
    for field in ("dtype", "form", *(() if has_batch_norm(name) else ("bn_groups",))):
        fields.pop(field, None)
    if not has_batch_norm(name):
        fields.pop("bn_statistics", None)
    with Checkpoints(workdir) as checkpoints:
        chosen = checkpoints.choose(step)
        ema, raw = checkpoints.restore_averages(chosen)
    variables = {"ema": ema, "raw": raw}[weights]
    if name in MERGES_INTO:
        name, variables = MERGES_INTO[name], merge_branches(variables)
    data, defaults = _group(config, "data"), DataConfig()
    mean, std = NORMALIZATIONS[data.get("normalization", defaults.normalization)]
    return Source(
        workdir=workdir,
        model=name,
        fields=fields,
        step=chosen,
        weights=weights,
        variables={"batch_stats": {}} | variables,
        fingerprint=_fingerprint(config),
        classes=_classes(workdir),
        preprocessing=Preprocessing(
            image_size=data.get("image_size", defaults.image_size),
            eval_crop=data.get("eval_crop", defaults.eval_crop),
            mean=tuple(mean),
            std=tuple(std),
        ),
        temperature=_group(config, "temperature").get("end", TemperatureConfig().end),
    )


def _group(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    group = config.get(name, {})
    return dict(group) if isinstance(group, Mapping) else {}


def _fingerprint(config: dict[str, Any]) -> str:
    """As `config.fingerprint`, of whatever fields the file has."""
    fields = {key: value for key, value in flatten(config).items() if key not in MAY_CHANGE}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


def _classes(workdir: pathlib.Path) -> list[str] | None:
    if not (workdir / workdirs.CLASSES_FILE).exists():
        return None
    return workdirs.read_class_names(workdir)
