"""What the figures show: published numbers and this project's own, each with its cost.

Multiply-adds and parameters of published networks are traced from this project's networks, those of
runs are in their summaries.
"""

import functools
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from pnet_jax.analysis.count import count
from pnet_jax.analysis.published import EXPERTS, NETWORKS, PARAMETERNET
from pnet_jax.errors import UserError
from pnet_jax.models import create_model, list_models

SUMMARY_FILE = "summary.json"
CONFIG_FILE = "config.json"
IMAGENET = "ImageNet-1K"

_FAMILIES = {
    "ghostnet": "GhostNet",
    "parameternet": "ParameterNet",
    "swin": "Swin",
    "efficientnetv2": "EfficientNetV2",
}
OTHER_FAMILY = "other"


class Network(NamedTuple):
    """A network of which something is known."""

    label: str  # within its family
    family: str
    model: str  # the name of `create_model`
    num_experts: int  # 1 for a static network
    params: int
    macs: int  # of one image
    data: str  # what was measured on; only equals compare
    source: str | None  # of what was published; None for a run of this project


class Accuracy(NamedTuple):
    """Top-1 of a network in percent."""

    network: Network
    pretrained: bool
    top1: float


class Gain(NamedTuple):
    """What pretraining adds to a network's top-1, in points."""

    network: Network
    gain: float
    static_model: str | None = None  # whose dynamic form the network is


class Cost(NamedTuple):
    """Of a network on one image."""

    params: int
    macs: int
    num_experts: int


CostOf = Callable[[str, int, Mapping[str, Any]], Cost]


def cost(model: str, image_size: int, fields: Mapping[str, Any]) -> Cost:
    """The cost of a network with these fields, traced from it."""
    return _cost(model, image_size, tuple(sorted(fields.items())))


@functools.cache  # the figures share networks, and a trace takes a second
def _cost(model: str, image_size: int, fields: tuple[tuple[str, Any], ...]) -> Cost:
    network = create_model(model, **dict(fields))
    counted = count(network, image_size)
    return Cost(counted.params, counted.macs.total, _num_experts(network))


def published(
    cost_of: CostOf = cost, models: Iterable[str] | None = None
) -> tuple[list[Accuracy], list[Gain]]:
    """The published accuracies, and gains of pretraining, of the networks named in `models`.

    By default these are all networks that this project has; `cost_of` must know them.
    """
    known = set(list_models() if models is None else models)
    accuracies: list[Accuracy] = []
    gains: list[Gain] = []
    for entry in NETWORKS:
        if entry.model not in known:
            continue
        found = cost_of(entry.model, entry.image_size, entry.fields)
        network = Network(
            label=entry.label,
            family=entry.family,
            model=entry.model,
            num_experts=found.num_experts,
            params=found.params,
            macs=found.macs,
            data=IMAGENET,
            source=entry.source,
        )
        for top1, pretrained in ((entry.top1_1k, False), (entry.top1_22k, True)):
            if top1 is not None:
                accuracies.append(Accuracy(network, pretrained, top1))
        if entry.gain_22k is not None:
            gains.append(Gain(network, entry.gain_22k, entry.static_model))
    return accuracies, gains


def published_experts(cost_of: CostOf = cost) -> list[Gain]:
    """The paper's ablation of the number of experts in GhostNet-300M."""
    points = []
    for entry in EXPERTS:
        found = cost_of(entry.model, 224, entry.fields)
        network = Network(
            label="300M",
            family=_family(entry.model),
            model=entry.model,
            num_experts=entry.num_experts,
            params=found.params,
            macs=found.macs,
            data=IMAGENET,
            source=PARAMETERNET,
        )
        points.append(Gain(network, entry.gain))
    return points


def load_run(directory: pathlib.Path) -> Accuracy:
    """A run of this project by its `summary.json`: the best top-1 of its evaluations.

    Raises:
      UserError: if there is no such file, or no evaluation in it.
    """
    path = directory / SUMMARY_FILE
    try:
        summary = json.loads(path.read_bytes())
        facts, best = summary["facts"], summary["eval"]["best"]
        if best is None:
            raise UserError(f"{path} has no evaluation; give runs that were evaluated.")
        dataset, num_classes = facts["dataset"], facts["num_classes"]
        network = Network(
            label=directory.resolve().name,
            family=_family(facts["model"]),
            model=facts["model"],
            num_experts=_experts_of_run(directory, facts["model"]),
            params=facts["parameters"],
            macs=facts["macs"],
            data=(
                IMAGENET
                if dataset == "imagenet2012" and num_classes == 1000
                else f"{dataset}, {num_classes:,} classes"
            ),
            source=None,
        )
        return Accuracy(network, facts["init_from"] is not None, 100 * best["eval/top1"])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{directory} is not the directory of a finished run: it has no {SUMMARY_FILE}; give "
            "the --workdir of a training run that has ended."
        ) from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{path} is not a summary that training wrote; give the --workdir of a training run."
        ) from error


def run_gains(runs: Iterable[Accuracy]) -> list[Gain]:
    """What pretraining added, of networks that were trained both from scratch and from weights.

    Of several runs that differ in nothing that is known here, the best one counts.
    """
    best: dict[Network, dict[bool, Accuracy]] = {}
    for run in sorted(runs, key=lambda run: run.top1):
        best.setdefault(run.network._replace(label=""), {})[run.pretrained] = run
    return [
        Gain(ways[True].network, ways[True].top1 - ways[False].top1)
        for ways in best.values()
        if len(ways) == 2
    ]


def load_latencies(path: pathlib.Path) -> tuple[str, dict[str, float]]:
    """Measured latencies: how they were measured, and milliseconds an image by model.

    The file holds `{"setting": "...", "latency_ms": {"parameternet_300m": 21.4, ...}}`.

    Raises:
      UserError: if it cannot be read or holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
        setting, latencies = content["setting"], content["latency_ms"]
        milliseconds = {str(model): float(value) for model, value in latencies.items()}
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a JSON file.") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f'{path} is no file of latencies; it must hold {{"setting": "...", "latency_ms": '
            '{"MODEL": MILLISECONDS, ...}}.'
        ) from error
    wrong = [model for model, value in milliseconds.items() if not 0 < value < math.inf]
    if wrong:
        raise UserError(f"{path}: the latency of {wrong[0]} must be a positive number.")
    return str(setting), milliseconds


def _family(model: str) -> str:
    return _FAMILIES.get(model.split("_")[0], OTHER_FAMILY)


def _num_experts(network: Any) -> int:
    return getattr(network, "num_experts", None) or 1


def _experts_of_run(directory: pathlib.Path, model: str) -> int:
    """From the run's configuration if it says so, else the model's own."""
    try:
        given = json.loads((directory / CONFIG_FILE).read_bytes())["model"]["num_experts"]
    except (OSError, ValueError, LookupError, TypeError):
        given = None
    if isinstance(given, int):
        return given
    return _num_experts(create_model(model)) if model in list_models() else 1
