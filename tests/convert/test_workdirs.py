"""Work directory -> PyTorch file -> directory to start from, through the command line."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.checkpoint.manager import Checkpoints
from pnet_jax.config import CheckpointConfig
from pnet_jax.convert import from_torch, merge_branches, to_torch, workdirs
from pnet_jax.convert.__main__ import main
from pnet_jax.convert.files import read_weights
from pnet_jax.models import create_model
from pnet_jax.models.ghostnet import STAGES_300M, GhostNet

NAME, OVERRIDES = "parameternet_300m", {"width": 0.1, "routing": "sigmoid_linear"}


def variables(seed):
    model = create_model(NAME, num_classes=3, **OVERRIDES)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(s.dtype), shapes)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run's directory with two checkpoints, the first of them the best."""
    directory = tmp_path_factory.mktemp("run")
    (directory / "config.json").write_text(json.dumps({"model": {"name": NAME, **OVERRIDES}}))
    with Checkpoints(directory, CheckpointConfig()) as checkpoints:
        for step, top1 in ((10, 0.5), (20, 0.25)):
            state = variables(step) | {"ema": variables(step + 1)}
            checkpoints.save(step, state, {"top1": top1})
    return directory


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(actual[name], expected[name])


def test_best_averages_are_the_default(workdir, tmp_path, capsys):
    out = tmp_path / "w.safetensors"
    assert main(["to-torch", "--workdir", str(workdir), "--out", str(out)]) == 0
    assert "parameternet_300m, step 10" in capsys.readouterr().out
    assert_equal(read_weights(out), to_torch(NAME, variables(11)))


def test_step_and_raw_weights(workdir, tmp_path):
    out = tmp_path / "w.safetensors"
    command = ["to-torch", "--workdir", str(workdir), "--out", str(out)]
    assert main([*command, "--step", "20", "--weights", "raw"]) == 0
    assert_equal(read_weights(out), to_torch(NAME, variables(20)))


def test_there_and_back(workdir, tmp_path):
    out, start = tmp_path / "w.safetensors", tmp_path / "start"
    assert main(["to-torch", "--workdir", str(workdir), "--out", str(out)]) == 0
    flags = ["--routing", "sigmoid_linear", "--width", "0.1"]
    command = ["from-torch", "--weights", str(out), "--model", NAME, "--out", str(start)]
    assert main([*command, *flags]) == 0
    with Checkpoints(start) as checkpoints:
        ema, raw = checkpoints.restore_averages(checkpoints.best_step())
    expected = from_torch(NAME, read_weights(out), **OVERRIDES)
    for restored in (ema, raw):
        jax.tree.map(np.testing.assert_array_equal, restored, expected)


def test_branches_are_merged(tmp_path, capsys):
    """What is written is the plain network; the beginning of one is enough to see it."""
    model = GhostNet(3, stages=STAGES_300M[:1], width=0.1, num_branches=4)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    ones = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), shapes)
    config = {"model": {"name": "ghostnet_300m_reparam"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with Checkpoints(tmp_path, CheckpointConfig()) as checkpoints:
        checkpoints.save(10, ones | {"ema": ones}, None)
    out = tmp_path / "w.safetensors"
    # Only a whole network has a way back.
    command = ["to-torch", "--no-verify", "--workdir", str(tmp_path), "--out", str(out)]
    assert main(command) == 0
    assert "ghostnet_300m, step 10" in capsys.readouterr().out
    written = read_weights(out)
    assert_equal(written, to_torch("ghostnet_300m", merge_branches(ones)))
    assert not any("branches" in key for key in written)
    # Four 3x3 kernels of ones and a 1x1 one.
    kernel = written["conv_stem.weight"][0, 0] * np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(kernel[1], [4, 5, 4], rtol=1e-6)


def test_a_way_back_that_differs_is_told(workdir, tmp_path, monkeypatch, capsys):
    def wrong(name, state_dict, **fields):
        restored = from_torch(name, state_dict, **fields)
        restored["params"]["conv_stem"]["routing"]["out"]["bias"] += 1e-7
        return restored

    monkeypatch.setattr(workdirs, "from_torch", wrong)
    out = tmp_path / "w.safetensors"
    assert main(["to-torch", "--workdir", str(workdir), "--out", str(out)]) == 1
    assert "changes params/conv_stem/routing/out/bias" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--workdir", "nowhere", "--out", "w.safetensors"], "not the work directory of a run"),
        (["--workdir", "RUN", "--out", "w.bin"], "must end in"),
        (["--workdir", "RUN", "--out", "w.pth", "--step", "7"], "it has: 10, 20"),
    ],
)
def test_mistakes_are_told(workdir, tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    arguments = [str(workdir) if argument == "RUN" else argument for argument in arguments]
    assert main(["to-torch", *arguments]) == 1
    told = capsys.readouterr().err
    assert told.startswith("pnet_jax: ")
    assert sentence in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.torch
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--workdir", "nowhere", "--out", "x.onnx"], "not the work directory of a run"),
        (["--workdir", "RUN", "--out", "x.onxx"], "x.onxx must end in .onnx"),
        (["--workdir", "RUN", "--out", "x.onnx", "--step", "7"], "it has: 10, 20"),
        (["--workdir", "RUN", "--out", "x.onnx", "--quantize", "8"], "names no data set"),
        (["--workdir", "RUN", "--out", "x.onnx", "--data-dir", "x"], "without --quantize"),
    ],
)
def test_mistakes_in_onnx_are_told(workdir, tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    arguments = [str(workdir) if argument == "RUN" else argument for argument in arguments]
    assert main(["to-onnx", *arguments]) == 1
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_something_else_is_told(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    command = ["to-torch", "--workdir", str(tmp_path), "--out", str(tmp_path / "x.safetensors")]
    assert main(command) == 1
    assert "names no network of this project" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "package"), [("to-litert", "litert_torch"), ("to-ncnn", "ncnn")]
)
def test_a_missing_package_for_phones_is_told(tmp_path, monkeypatch, capsys, command, package):
    monkeypatch.setitem(sys.modules, package, None)
    for module in ("litert", "ncnn"):
        monkeypatch.delitem(sys.modules, f"pnet_jax.convert.mobile.{module}", raising=False)
    assert main([command, "--workdir", str(tmp_path), "--out", str(tmp_path / "x.tflite")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"pnet_jax: {command} needs ")
    assert said.endswith("not installed: pip install 'pnet_jax[mobile]'.\n")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
