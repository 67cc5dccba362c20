"""The same five classes from every format of the same checkpoint."""

import json

import cv2
import jax
import numpy as np
import pytest

from pnet_jax.augment.normalize import MEAN, STD
from pnet_jax.checkpoint.manager import Checkpoints
from pnet_jax.config import CheckpointConfig
from pnet_jax.convert.__main__ import main as convert
from pnet_jax.models import create_model, init_variables
from pnet_jax.predict import main

FIELDS = {"name": "ghostnet_300m", "width": 0.1}
NAMES = [f"kind {letter}" for letter in "abcdefg"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's directory, as training leaves it, and three image files."""
    directory = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    overrides = {key: value for key, value in FIELDS.items() if key != "name"}
    variables = init_variables(
        create_model(FIELDS["name"], num_classes=7, **overrides), jax.random.key(0)
    )
    # A fresh head sees next to no difference between images.
    variables["params"]["classifier"]["kernel"] *= 100
    config = {"model": FIELDS, "data": {"image_size": 40, "eval_crop": 0.9}}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "classes.json").write_text(json.dumps(NAMES))
    with Checkpoints(directory, CheckpointConfig()) as checkpoints:
        checkpoints.save(3, variables | {"ema": variables}, None)
    images = []
    for number, shape in enumerate(((60, 50, 3), (33, 80, 3), (200, 200, 3))):
        images.append(str(directory / f"{number}.png"))
        blocks = cv2.resize(rng.integers(0, 256, (4, 4, 3), np.uint8), shape[1::-1])
        assert cv2.imwrite(images[-1], blocks)
    return directory, images


def predicted(weights, images, capsys):
    assert main(["--weights", str(weights), "--json", *images]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.torch
def test_every_format_says_the_same(run, tmp_path, capsys):
    directory, images = run
    formats = {
        "a.safetensors": ["to-torch"],
        "b.pth": ["to-torch"],
        "c.onnx": ["to-onnx"],
        "d.onnx": ["to-onnx", "--with-preprocessing", "--batch", "2", "--no-verify"],
    }
    for name, command in formats.items():
        options = ["--workdir", str(directory), "--out", str(tmp_path / name)]
        assert convert([*command, *options]) == 0
    capsys.readouterr()
    expected = predicted(directory, images, capsys)
    assert [entry["image"] for entry in expected] == images
    best = [entry["classes"] for entry in expected]
    assert [len(classes) for classes in best] == [5, 5, 5]
    for classes in best:
        probabilities = [entry["probability"] for entry in classes]
        assert probabilities == sorted(probabilities, reverse=True)
        assert classes[0]["name"] == NAMES[classes[0]["class"]]
    for name in formats:
        for theirs, ours in zip(predicted(tmp_path / name, images, capsys), expected, strict=True):
            assert [c["name"] for c in theirs["classes"]] == [c["name"] for c in ours["classes"]]
            for there, here in zip(theirs["classes"], ours["classes"], strict=True):
                assert there["probability"] == pytest.approx(here["probability"], abs=1e-5)
    record = json.loads((tmp_path / "conversion.json").read_text())
    assert record.keys() == formats.keys()
    assert record["b.pth"]["preprocessing"]["mean"] == list(MEAN)
    assert record["c.onnx"]["preprocessing"]["std"] == list(STD)


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
def test_bad_weights_are_told(run, tmp_path, capsys, weights, content, sentence):
    if content is not None:
        (tmp_path / weights).write_bytes(content)
    assert main(["--weights", str(tmp_path / weights), run[1][0]]) == 1
    told = capsys.readouterr().err
    assert told.startswith("pnet_jax: ")
    assert sentence in told


def test_what_is_no_image_is_told(run, tmp_path, capsys):
    (tmp_path / "x.png").write_text("no image")
    for image, sentence in (("x.png", "is no whole image"), ("gone.png", "cannot be read")):
        assert main(["--weights", str(run[0]), str(tmp_path / image)]) == 1
        assert sentence in capsys.readouterr().err
