"""The same five classes from every format of the same checkpoint."""

import json

import numpy as np
import pytest

from pnet_jax.augment.normalize import MEAN, STD
from pnet_jax.convert.__main__ import main as convert
from pnet_jax.convert.files import read_weights
from pnet_jax.data.datasets import open_dataset
from pnet_jax.predict import main
from tests.tiny_run import NUM_CLASSES, NUM_EVAL, FinishedRun

pytest_plugins = ["tests.tiny_run_plugin"]


@pytest.fixture(scope="module")
def names(data_dir):
    return open_dataset("emoji", str(data_dir), label="label", build_demo=print).class_names


@pytest.fixture(scope="module")
def images(data_dir, tmp_path_factory):
    """Three validation images as files."""
    data_set = open_dataset("emoji", str(data_dir), label="label", build_demo=print)
    directory = tmp_path_factory.mktemp("images")
    paths = []
    for number in (0, 1, 2):
        paths.append(directory / f"{number}.jpg")
        paths[-1].write_bytes(data_set.split("validation")[number].image)
    return [str(path) for path in paths]


def predicted(weights, images, capsys):
    assert main(["--weights", str(weights), "--json", *images]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.torch
def test_a_trained_network_says_the_same_in_every_format(
    finished_run: FinishedRun, names, images, tmp_path, capsys
):
    formats = {
        "a.safetensors": ["to-torch"],
        "b.pth": ["to-torch"],
        "c.onnx": ["to-onnx"],
        "d.onnx": ["to-onnx", "--with-preprocessing", "--batch", "2", "--no-verify"],
        "e.onnx": ["to-onnx", "--experts", "int8"],
        "f.onnx": ["to-onnx", "--quantize", "40"],
    }
    for name, command in formats.items():
        options = ["--workdir", str(finished_run.workdir), "--out", str(tmp_path / name)]
        assert convert([*command, *options]) == 0
    said = capsys.readouterr()
    assert convert(["to-hub", *options[:2], "--out", str(tmp_path / "hub")]) == 0
    capsys.readouterr()
    expected = predicted(finished_run.workdir, images, capsys)
    assert [entry["image"] for entry in expected] == images
    for entry in expected:
        probabilities = [found["probability"] for found in entry["classes"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert len(probabilities) == 5
        assert all(found["name"] == names[found["class"]] for found in entry["classes"])
    # A static network has no experts, but matrices, which are stored in 16 bits.
    rounded = {"e.onnx": 1e-3, "f.onnx": 0.02}
    for name in formats:
        for theirs, ours in zip(predicted(tmp_path / name, images, capsys), expected, strict=True):
            if name not in rounded:
                there, here = ([c["name"] for c in of["classes"]] for of in (theirs, ours))
                assert there == here
            for there, here in zip(theirs["classes"], ours["classes"], strict=True):
                margin = rounded.get(name, 1e-5)
                assert there["probability"] == pytest.approx(here["probability"], abs=margin)
    record = json.loads((tmp_path / "conversion.json").read_text())
    assert record.keys() == formats.keys()
    assert record["a.safetensors"]["verified"] == "read back bit by bit"
    assert record["b.pth"]["preprocessing"]["mean"] == list(MEAN)
    assert record["c.onnx"]["preprocessing"]["std"] == list(STD)
    assert record["c.onnx"]["num_classes"] == NUM_CLASSES
    told = record["f.onnx"]["int8"]
    assert told["calibration"] == {"split": "emoji/train", "images": 40}
    accuracy = told["accuracy"]
    assert (accuracy["split"], accuracy["images"]) == ("emoji/validation", NUM_EVAL)
    lines = (finished_run.workdir / "metrics_eval.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    trained = {int(row["step"]): float(row["eval/top1"]) for row in rows}
    assert accuracy["fp32_top1"] == pytest.approx(trained[record["f.onnx"]["step"]], abs=1e-4)
    assert accuracy["int8_top1"] == pytest.approx(accuracy["fp32_top1"], abs=0.1)
    assert f"in int8 {accuracy['int8_top1']:.2%}, on 45 images of emoji/validation" in said.out
    assert "accuracy: step 45/45" in said.err
    # And back: what is made of the file gives the file again.
    start, again = tmp_path / "start", tmp_path / "again" / "a.safetensors"
    model = ["--model", "ghostnet_300m", "--width", "0.15"]
    command = ["from-torch", "--weights", str(tmp_path / "a.safetensors"), "--out", str(start)]
    assert convert([*command, *model]) == 0
    assert convert(["to-torch", "--workdir", str(start), "--out", str(again)]) == 0
    first = read_weights(tmp_path / "a.safetensors")
    for path in (again, tmp_path / "b.pth", tmp_path / "hub" / "model.safetensors"):
        second = read_weights(path)
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            np.testing.assert_array_equal(second[name], tensor)


@pytest.mark.torch
def test_too_many_images_to_calibrate_with_are_told(finished_run: FinishedRun, tmp_path, capsys):
    command = ["to-onnx", "--workdir", str(finished_run.workdir), "--quantize", "4000"]
    assert convert([*command, "--out", str(tmp_path / "x.onnx")]) == 1
    told = capsys.readouterr().err
    assert told == "pnet_jax: emoji/train has 200 images, not 4,000; take fewer.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("weights", "content", "sentence"),
    [
        ("gone.onnx", None, "There is no file"),
        ("gone.safetensors", None, "There is no weights file"),
        ("cut.onnx", b"\x08\x07", "no whole ONNX model"),
        ("empty", None, "check --weights"),
    ],
)
@pytest.mark.torch
def test_bad_weights_are_told(images, tmp_path, capsys, weights, content, sentence):
    if content is not None:
        (tmp_path / weights).write_bytes(content)
    assert main(["--weights", str(tmp_path / weights), images[0]]) == 1
    told = capsys.readouterr().err
    assert told.startswith("pnet_jax: ")
    assert sentence in told


def test_what_is_no_image_is_told(finished_run: FinishedRun, tmp_path, capsys):
    (tmp_path / "x.png").write_text("no image")
    for image, sentence in (("x.png", "is no whole image"), ("gone.png", "cannot be read")):
        assert main(["--weights", str(finished_run.workdir), str(tmp_path / image)]) == 1
        assert sentence in capsys.readouterr().err
