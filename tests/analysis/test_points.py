"""Runs as points: what is read from a run's directory, and which runs compare."""

import json
import pathlib
from typing import Any

import pytest

from pnet_jax.analysis.points import (
    IMAGENET,
    Accuracy,
    Cost,
    Network,
    load_latencies,
    load_run,
    published,
    published_experts,
    run_gains,
)
from pnet_jax.analysis.published import NETWORKS
from pnet_jax.errors import UserError


def write_run(
    directory: pathlib.Path, *, top1: float | None = 0.25, config: Any = None, **facts: Any
) -> pathlib.Path:
    """A finished run's summary, with the keys that training writes."""
    directory.mkdir(parents=True)
    defaults = {
        "model": "parameternet_300m",
        "parameters": 2_721_396,
        "macs": 4_936_265,
        "dataset": "emoji",
        "num_classes": 96,
        "init_from": None,
    }
    best = None if top1 is None else {"step": 117, "eval/top1": top1}
    summary = {"facts": defaults | facts, "eval": {"final": best, "best": best}}
    (directory / "summary.json").write_text(json.dumps(summary))
    if config is not None:
        (directory / "config.json").write_text(json.dumps(config))
    return directory


def test_a_run(tmp_path):
    directory = write_run(tmp_path / "finetune", top1=0.1476, init_from="runs/pretrain")
    network = Network(
        label="finetune",
        family="ParameterNet",
        model="parameternet_300m",
        num_experts=4,
        params=2_721_396,
        macs=4_936_265,
        data="emoji, 96 classes",
        source=None,
    )
    assert load_run(directory) == Accuracy(network, True, pytest.approx(14.76))


@pytest.mark.parametrize(
    ("facts", "config", "num_experts"),
    [
        ({}, {"model": {"num_experts": None}}, 4),
        ({}, {"model": {"num_experts": 8}}, 8),
        ({"model": "ghostnet_300m"}, {"model": {"num_experts": None}}, 1),
        ({"model": "of_another_version"}, None, 1),
    ],
)
def test_experts_of_a_run(tmp_path, facts, config, num_experts):
    run = load_run(write_run(tmp_path / "run", config=config, **facts))
    assert run.network.num_experts == num_experts


def test_only_imagenet_is_imagenet(tmp_path):
    for number, (dataset, classes) in enumerate(
        [("imagenet2012", 1000), ("imagenet2012", 100), ("mine", 1000)]
    ):
        directory = write_run(tmp_path / str(number), dataset=dataset, num_classes=classes)
        assert (load_run(directory).network.data == IMAGENET) == (number == 0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "is not the directory of a finished run: it has no summary.json"),
        ("{", "summary.json is not a summary that training wrote"),
        ("[]", "summary.json is not a summary that training wrote"),
        ('{"facts": {}, "eval": {"best": {"eval/top1": 1}}}', "is not a summary that training"),
        ('{"facts": {}, "eval": {"best": null}}', "summary.json has no evaluation"),
    ],
)
def test_what_is_no_run(tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(UserError, match=sentence):
        load_run(tmp_path)


def test_gains_of_runs_compare_equals_only(tmp_path):
    runs = [
        write_run(tmp_path / "scratch", top1=0.10),
        write_run(tmp_path / "scratch_again", top1=0.12),
        write_run(tmp_path / "finetune", top1=0.20, init_from="a"),
        write_run(tmp_path / "finetune_again", top1=0.15, init_from="a"),
        write_run(tmp_path / "wider", top1=0.30, init_from="a", parameters=5),
        write_run(tmp_path / "other_data", top1=0.05, num_classes=1577),
    ]
    (gain,) = run_gains(load_run(directory) for directory in runs)
    assert gain.gain == pytest.approx(8.0)
    assert gain.network.label == "finetune"
    assert gain.network.source is None
    assert run_gains([]) == []


def test_published_networks_are_those_of_this_project():
    def cost_of(model, image_size, fields):
        return Cost(image_size, len(model), 4 if "parameternet" in model else 1)

    accuracies, gains = published(cost_of, ["ghostnet_300m", "efficientnetv2_s", "other"])
    assert [(a.network.model, a.pretrained, a.top1) for a in accuracies] == [
        ("ghostnet_300m", False, 76.3),
        ("ghostnet_300m", True, 75.7),
        ("efficientnetv2_s", False, 83.9),
        ("efficientnetv2_s", True, 84.9),
    ]
    assert [(g.network.model, g.gain) for g in gains] == [
        ("ghostnet_300m", -0.6),
        ("efficientnetv2_s", 1.0),
    ]
    # At the resolution of the publication.
    assert [a.network.params for a in accuracies] == [224, 224, 384, 384]
    everything = published(cost_of, [entry.model for entry in NETWORKS])
    assert all(point.network.source for points in everything for point in points)
    assert [g.network.num_experts for g in published_experts(cost_of)] == [1, 4, 8]


def test_latencies(tmp_path):
    path = tmp_path / "latency.json"
    path.write_text('{"setting": "one core", "latency_ms": {"ghostnet_300m": 20.5}}')
    assert load_latencies(path) == ("one core", {"ghostnet_300m": 20.5})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "latency.json cannot be read .No such file or directory.; name a JSON file"),
        ("[1]", "latency.json is no file of latencies; it must hold"),
        ('{"setting": "a"}', "latency.json is no file of latencies"),
        ('{"setting": "a", "latency_ms": {"b": "c"}}', "latency.json is no file of latencies"),
        ('{"setting": "a", "latency_ms": {"b": 0}}', "the latency of b must be a positive number"),
    ],
)
def test_what_is_no_file_of_latencies(tmp_path, content, sentence):
    path = tmp_path / "latency.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=sentence):
        load_latencies(path)
