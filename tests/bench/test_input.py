"""The stages of the input, measured on a small set."""

import json

import pytest

from pnet_jax.bench.__main__ import main
from pnet_jax.bench.input import Measured, verdict
from pnet_jax.data import generated
from pnet_jax.data.datasets import open_dataset
from pnet_jax.data.decode import decode


def test_measures_a_named_set(tmp_path, capsys):
    generated.build(tmp_path, num_images=8, copies=1, num_shards=2)
    records = open_dataset("generated", str(tmp_path), label="label", build_demo=print).split(
        "train"
    )
    assert len(records) == 8
    sizes = [len(record.image) for record in records]
    assert min(sizes) > 80_000
    assert max(sizes) < 130_000
    assert {decode(record.image).shape for record in records} == {(375, 500, 3), (500, 375, 3)}

    out = tmp_path / "input.json"
    arguments = ["input", "--name=generated", f"--data-dir={tmp_path}", "--images=8", "--rounds=1"]
    arguments += ["--workers", "1", "--image-size=32", "--images-per-sec=1e9", f"--out={out}"]
    code = main(arguments)
    assert code == 0
    rows = {row["stage"]: row for row in json.loads(out.read_text())}
    costs = {name: float(row["us an image"]) for name, row in rows.items()}
    assert costs.keys() >= {"read", "parse", "decode, crop, resize", "batch", "transfer"}
    assert min(costs.values()) > 0
    assert costs["end to end, in process"] > costs["parse"]
    assert float(rows["main process beside 1 worker"]["images/s"].replace(",", "")) > 0
    assert "the input is the limit" in capsys.readouterr().out


def test_the_verdict_counts_cores():
    measured = [
        Measured("end to end, in process", 1e-3),
        Measured("Pillow and float32", 2.5e-3),
        Measured("entropy decoding alone, the floor", 0.7e-3),
    ]
    first, second, third = verdict(measured, 1.0)
    assert first.startswith("1 images/s need 0.0 cores")
    assert "the input is not the limit" in first
    assert second == "2.50 times the rate of Pillow and float32."
    assert third == "70% of the rate of entropy decoding alone."
    assert "8,000.0 cores" in verdict(measured, 8e6)[0]


def test_an_absent_set_is_one_sentence(tmp_path, capsys):
    assert main(["input", "--name=nothing", f"--data-dir={tmp_path}"]) == 2
    assert "There is no data set 'nothing'" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--images=0", "--rounds=0"])
def test_numbers_must_be_positive(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["input", option])
    assert stopped.value.code == 2
    assert "must be at least 1" in capsys.readouterr().err
