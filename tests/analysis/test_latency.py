"""The latency study times what it says, in turns, and its file is what the figure reads."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

from pnet_jax import analyze
from pnet_jax.analysis import latency, points
from pnet_jax.errors import UserError


def test_ratios_are_those_of_neighbours():
    slow = latency.Timed("resnet50", [4.0, 40.0, 4.4])
    fast = latency.Timed("ghostnet_300m", [1.0, 10.0, 1.0])
    assert latency.ratio(slow, fast) == 4.0
    table = latency.rows([fast, slow])
    assert [row["ms"] for row in table] == ["1.00", "4.40"]
    assert [row["ResNet-50 / it"] for row in table] == ["4.00", "1.00"]
    assert "Swin-T / it" not in table[0]


@pytest.mark.torch
def test_command_times_networks_and_files(tmp_path, capsys):
    out = tmp_path / "latency.json"
    names = ["ghostnet_300m", "parameternet_300m", "ghostnet_300m:published"]
    command = ["latency", "--models", *names, "--repeats", "3", "--resolution", "32"]
    assert analyze.main([*command, "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    assert [len(printed["milliseconds"][name]) for name in names] == [3, 3, 3]
    said, times = points.load_latencies(out)
    assert "1 thread" in said
    assert "ONNX Runtime" in said
    for name in names:
        assert times[name] == pytest.approx(np.median(printed["milliseconds"][name]), abs=1e-3)


@pytest.mark.slow
@pytest.mark.torch
def test_openvino_times_the_same_files(tmp_path):
    """In a process of its own: PyTorch, too, imports OpenVINO, which then reports its use."""
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("needs openvino, which is not installed")
    from pnet_jax.convert.onnx.export import Options, write_onnx

    source = latency.random_source("ghostnet_300m", 32)
    files = [tmp_path / "fixed.onnx", tmp_path / "pixels.onnx"]
    for path, options in zip(
        files, (Options(batch=1), Options(with_preprocessing=True)), strict=True
    ):
        write_onnx(source, path, options, verified=False)

    def run(*models):
        command = ["latency", "--runtime", "openvino", "--repeats", "2", "--resolution", "32"]
        return subprocess.run(
            [sys.executable, "-m", "pnet_jax.analyze", *command, "--json", "--models", *models],
            capture_output=True,
            text=True,
            check=False,
        )

    names = [*map(str, files), "parameternet_300m"]
    done = run(*names)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert [len(printed["milliseconds"][name]) for name in names] == [2, 2, 2]
    assert printed["setting"].startswith("OpenVINO 2")
    (tmp_path / "cut.onnx").write_bytes(files[0].read_bytes()[:1000])
    done = run(str(tmp_path / "cut.onnx"))
    assert done.returncode == 2
    assert "cut.onnx is no ONNX model that OpenVINO reads" in done.stderr


def test_without_openvino_the_remedy_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openvino", None)
    (tmp_path / "x.onnx").touch()
    with pytest.raises(UserError, match=r"pip install 'pnet_jax\[openvino\]'"):
        latency.measure([str(tmp_path / "x.onnx")], threads=1, repeats=2, runtime="openvino")


@pytest.mark.torch
@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("ghostnet_300", "did you mean 'ghostnet_300m'"),
        ("resnet50:published", "There is no model 'resnet50'; there are"),
        ("gone.onnx", "There is no file gone.onnx"),
    ],
)
def test_mistakes_are_told(model, sentence):
    with pytest.raises(UserError, match=sentence):
        latency.measure([model], threads=1, repeats=2)
