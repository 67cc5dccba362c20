"""The command line of the analysis, and that the documents are what it writes."""

import json
import pathlib
import subprocess
import sys

import pytest

from pnet_jax.analyze import main
from pnet_jax.models import list_models
from tests.analysis.test_points import write_run

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"
SMALL = ["--model=parameternet_300m", "--resolution=32", "--routing=sigmoid_linear"]


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_count(capsys):
    out = output(capsys, "count", *SMALL)
    lines = out.splitlines()
    assert lines[0].split() == [
        "layer", "kind", "output", "params", "conv+linear", "mixing", "routing", "MACs"
    ]  # fmt: skip
    assert lines[2].split()[:6] == ["conv_stem", "dynamic", "conv", "3x3/2", "16x16x24", "2,608"]
    assert lines[-1].startswith("parameternet_300m, 1,000 classes, 32 px: 15,737,100 parameters; ")


def test_count_as_json(capsys):
    content = json.loads(output(capsys, "count", *SMALL, "--num-experts=8", "--json"))
    assert (content["model"], content["resolution"]) == ("parameternet_300m", 32)
    assert content["params"] == 25_183_816
    assert content["macs"]["mixing"] == 2 * 9_370_888
    assert sum(layer["params"] for layer in content["layers"]) == content["params"]
    other = json.loads(
        output(capsys, "count", "--model=ghostnet_300m", "--num-classes=10", "--json")
    )
    assert other["params"] == 8_633_106 - 990 * 1281
    assert other["macs"]["total"] == 282_816_640 - 990 * 1280


def test_complexity(capsys):
    out = output(capsys, "complexity", *SMALL)
    assert "whole network" in out
    assert "R_param about 4, R_FLOPs about 1" in out
    content = json.loads(output(capsys, "complexity", *SMALL, "--json"))
    assert len(content["layers"]) == 76
    network = content["network"]
    assert (network["static_params"], network["params"]) == (8_633_106, 15_737_100)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["count", "--model=ghostnet_300"], "There is no model 'ghostnet_300'; did you mean"),
        (
            ["count", "--model=ghostnet_300m", "--num-experts=4"],
            "ghostnet_300m is static and has no experts",
        ),
        (
            ["count", "--model=ghostnet_300m", "--routing=softmax_mlp"],
            "ghostnet_300m is static and has no router; leave --routing out",
        ),
        (["count", "--model=parameternet_300m", "--routing=x"], "There is no routing 'x'"),
        (["complexity", "--model=ghostnet_300m"], "ghostnet_300m is static and has nothing to"),
        (["figures", "--runs", "/absent", "--out=x"], "/absent is not the directory of a finished"),
        (["figures", "--latency=/absent", "--out=x"], "/absent cannot be read"),
        (["models", "--out=/dev/null/x"], "/dev/null/x cannot be written"),
    ],
)
def test_mistakes_end_in_one_sentence(capsys, monkeypatch, arguments, sentence):
    monkeypatch.setattr("pnet_jax.analyze.list_models", list)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("pnet_jax: ")
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["count"], ["count", "--model=a", "--resolution=0"], []])
def test_a_wrong_command_line_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    assert "usage: python -m pnet_jax.analyze" in capsys.readouterr().err


def test_figures(capsys, monkeypatch, tmp_path):
    """Twice, the same files; a figure without its numbers is left out with a sentence."""
    networks = ["ghostnet_300m", "parameternet_300m"]
    monkeypatch.setattr("pnet_jax.analysis.points.list_models", lambda: networks)
    monkeypatch.setattr("pnet_jax.analyze.list_models", lambda: networks)
    runs = [
        str(write_run(tmp_path / "scratch", top1=0.1)),
        str(write_run(tmp_path / "finetune", top1=0.15, init_from="runs/a")),
    ]
    out = output(capsys, "figures", "--runs", *runs, "--out", str(tmp_path / "a"))
    assert "left out accuracy_latency: no latencies were given (--latency FILE)\n" in out
    assert "left out, as this project has no such networks: " in out
    assert "parameternet_600m" in out
    latency = tmp_path / "latency.json"
    latency.write_text('{"setting": "a CPU", "latency_ms": {"parameternet_300m": 24}}')
    arguments = ["--latency", str(latency), "--out", str(tmp_path / "b")]
    out = output(capsys, "figures", "--runs", *runs, *arguments)
    assert "accuracy_latency.svg, .png and .json\n" in out
    files = {f"{name}{end}" for name in ("accuracy_flops", "experts") for end in (".svg", ".png")}
    files |= {"accuracy_flops.json", "experts.json"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == files
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert len(list((tmp_path / "b").iterdir())) == 9
    assert (tmp_path / "b" / "accuracy_latency.svg").read_text().startswith("<?xml")
    points = json.loads((tmp_path / "a" / "accuracy_flops.json").read_text())
    shown = [(p["network"]["label"], p.get("top1"), p["network"]["source"] is None) for p in points]
    assert shown[:6] == [
        ("300M", 76.3, False),
        ("300M", 75.7, False),
        ("300M", 77.2, False),
        ("300M", 79.1, False),
        ("scratch", 10.0, True),
        ("finetune", 15.0, True),
    ]
    assert points[2]["network"]["macs"] == 292_263_052
    experts = json.loads((tmp_path / "a" / "experts.json").read_text())
    assert [point["gain"] for point in experts] == [-0.6, 1.9, 1.7, pytest.approx(5.0)]


def test_latencies_of_no_published_network(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("pnet_jax.analysis.points.list_models", lambda: ["ghostnet_300m"])
    path = tmp_path / "latency.json"
    path.write_text('{"setting": "a", "latency_ms": {"b": 1}}')
    assert main(["figures", "--latency", str(path), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"pnet_jax: {path} has no network with a published accuracy; there are ghostnet_300m.\n"
    )


def test_models(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("pnet_jax.analyze.list_models", lambda: ["ghostnet_300m"])
    assert output(capsys, "models", "--out", str(tmp_path / "m.md")) == f"wrote {tmp_path}/m.md\n"
    text = (tmp_path / "m.md").read_text()
    (row,) = json.loads(output(capsys, "models", "--json"))
    assert (row["name"], row["macs"]["total"]) == ("ghostnet_300m", 282_816_640)
    assert (row["num_experts"], row["papers"]) == (None, ["1911.11907"])
    # The line of a network is that of the committed document.
    (line,) = (line for line in text.splitlines() if line.startswith("| `ghostnet_300m`"))
    assert line in (DOCS / "models.md").read_text().splitlines()


def test_the_committed_document_has_every_network():
    lines = (DOCS / "models.md").read_text().splitlines()
    names = [line.split("`")[1] for line in lines if line.startswith("| `")]
    assert names == list_models()


@pytest.mark.slow
def test_the_committed_document_is_what_the_command_writes(capsys):
    assert output(capsys, "models") == (DOCS / "models.md").read_text()


def test_the_module_runs():
    command = [sys.executable, "-W", "error", "-m", "pnet_jax.analyze"]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    for name in ("count", "complexity", "models", "figures"):
        assert name in done.stdout
    assert done.stderr == ""
