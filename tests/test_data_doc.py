"""The program of docs/data.md builds a set from a folder that TFDS and the pipeline read."""

import pathlib
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from pnet_jax.config import DataConfig
from pnet_jax.data.datasets import open_dataset
from pnet_jax.data.pipeline import Reading, eval_batches

DOC = pathlib.Path(__file__).parents[1] / "docs" / "data.md"
CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Class k's pictures are grey of about 80 k; among them a PNG called .JPEG and a cut file."""
    for split, count in {"train": 4, "validation": 2}.items():
        for label, class_name in enumerate(CLASSES):
            directory = tmp_path / "folder" / split / class_name
            directory.mkdir(parents=True)
            for i in range(count):
                picture = np.full((40, 30 + i, 3), 80 * label + i, np.uint8)
                cv2.imwrite(str(directory / f"{i}.jpg"), picture)
    train = tmp_path / "folder" / "train"
    png = cv2.imencode(".png", np.full((32, 32, 3), (200, 80, 80), np.uint8))[1].tobytes()
    (train / "bee" / "3.jpg").write_bytes(png)
    cut = (train / "cat" / "2.jpg").read_bytes()[:-20]
    (train / "cat" / "2.jpg").write_bytes(cut)
    return tmp_path / "folder"


def program() -> str:
    (code,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
        if "write_metadata" in block
    )
    return code


def test_the_program_builds_what_tfds_and_the_pipeline_read(folder, tmp_path):
    path = tmp_path / "build.py"
    path.write_text(program())
    command = [sys.executable, str(path), str(folder), "insects", str(tmp_path / "data")]
    outputs = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)
    ]
    # The second start finds both shards written.
    assert outputs == [f"left out, not a whole image: {folder}/train/cat/2.jpg\n", ""]

    source = tfds.builder_from_directory(tmp_path / "data" / "insects" / "1.0.0").as_data_source
    train = list(source("train"))
    names = {record["file_name"].decode() for record in train}
    wanted = {f"{class_name}/{i}.jpg" for class_name in CLASSES for i in range(4)}
    assert names == wanted - {"cat/2.jpg"}
    assert [record["file_name"].decode() for record in train] != sorted(names)
    for record in train:
        class_name, number = record["file_name"].decode().removesuffix(".jpg").split("/")
        assert record["label"] == CLASSES.index(class_name)
        blue_png = (class_name, number) == ("bee", "3")
        expected = (80, 80, 200) if blue_png else (80 * record["label"] + int(number),) * 3
        assert np.abs(record["image"].mean((0, 1)) - expected).max() < 3

    dataset = open_dataset("insects", str(tmp_path / "data"), label="label", build_demo=print)
    assert dataset.class_names == CLASSES
    records = dataset.split("validation")
    how = Reading(global_batch_size=4, image_size=16)
    batches = list(eval_batches(records, how, share=0.875))
    labels = np.concatenate([batch["label"] for batch in batches])
    weights = np.concatenate([batch["weight"] for batch in batches])
    assert sorted(labels[weights == 1]) == [0, 0, 1, 1, 2, 2]
    for batch in batches:
        for image, label, weight in zip(
            *(batch[k] for k in ("image", "label", "weight")), strict=True
        ):
            assert weight == 0 or abs(image.mean() - 80 * label) < 3


def test_every_field_is_explained():
    table = DOC.read_text().split("| `config.data.` | |")[1].split("\n\n")[0]
    explained = re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines()[2:]))
    assert sorted(explained) == sorted(DataConfig.__dataclass_fields__)
