"""Whatever the writer writes, TFDS reads back, without TensorFlow."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from pnet_jax.data import writer

LABEL_NAMES = {"label": ("cat", "dog, hound", "émeu"), "coarse_label": ("mammal", "bird")}


def jpeg(value: int) -> bytes:
    return cv2.imencode(".jpg", np.full((8, 12, 3), value, np.uint8))[1].tobytes()


def example(index: int) -> writer.Example:
    label = index % 3
    return writer.Example(
        jpeg(20 * index), {"label": label, "coarse_label": label // 2}, f"n{index}_é.jpg"
    )


def write_set(directory, sizes=(3, 2), validation=1):
    splits, first = {}, 0
    for split, shard_sizes in {"train": sizes, "validation": (validation,)}.items():
        infos = []
        for index, size in enumerate(shard_sizes):
            path = writer.shard_path(
                directory, name="toy", split=split, index=index, num_shards=len(shard_sizes)
            )
            examples = (example(i) for i in range(first, first + size))
            infos.append(writer.write_shard(path, examples, LABEL_NAMES))
            first += size
        splits[split] = infos
    writer.write_metadata(
        directory,
        name="toy",
        version="1.2.3",
        splits=splits,
        label_names=LABEL_NAMES,
        description="a toy",
        homepage="https://example.org",
    )
    return splits


def test_round_trip_through_tfds(tmp_path):
    directory = tmp_path / "toy" / "1.2.3"
    splits = write_set(directory)

    builder = tfds.builder_from_directory(directory)
    assert (builder.name, str(builder.version)) == ("toy", "1.2.3")
    assert builder.info.description == "a toy"
    assert builder.info.splits["train"].num_examples == 5
    assert builder.info.splits["train"].shard_lengths == [3, 2]
    assert builder.info.splits["train"].num_bytes == sum(i.num_bytes for i in splits["train"])
    assert builder.info.splits["validation"].num_examples == 1
    for key, names in LABEL_NAMES.items():
        assert tuple(builder.info.features[key].names) == names

    source = builder.as_data_source("train")
    assert len(source) == 5
    for index in range(5):
        record = source[index]
        assert set(record) == {"image", "file_name", "label", "coarse_label"}
        assert record["file_name"].decode() == f"n{index}_é.jpg"
        assert (record["label"], record["coarse_label"]) == (index % 3, index % 3 // 2)
        assert record["image"].shape == (8, 12, 3)
        assert abs(int(record["image"].mean()) - 20 * index) <= 1
    (held_out,) = builder.as_data_source("validation")
    assert held_out["file_name"].decode() == "n5_é.jpg"
    raw = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    assert raw[2]["image"] == jpeg(40)


def test_it_reads_the_set_by_name(tmp_path):
    write_set(tmp_path / "toy" / "1.2.3")
    builder = tfds.builder("toy", data_dir=tmp_path)
    assert builder.info.splits["train"].num_examples == 5


def test_writes_and_reads_with_tensorflow_blocked(tmp_path):
    program = f"""
import importlib.abc, importlib.machinery, pathlib, sys

class Blocker(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    # As if TensorFlow were installed, but any import of it fails.
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec):
        raise ModuleNotFoundError(spec.name)

    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Blocker())
from pnet_jax.data import writer
directory = pathlib.Path({str(tmp_path)!r}) / "toy" / "1.0.0"
names = {{"label": ["a", "b"]}}
path = writer.shard_path(directory, name="toy", split="train", index=0, num_shards=1)
info = writer.write_shard(path, [writer.Example({jpeg(7)!r}, {{"label": 1}}, "x.jpg")], names)
writer.write_metadata(directory, name="toy", version="1.0.0", splits={{"train": [info]}},
                      label_names=names, description="")
import tensorflow_datasets as tfds
(record,) = tfds.builder_from_directory(directory).as_data_source("train")
assert "tensorflow" not in sys.modules
print(record["label"], record["image"].shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[-2] == "1 (8, 12, 3)"


def test_record_is_what_tfds_would_write():
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "file_name": tfds.features.Text(),
            "label": tfds.features.ClassLabel(num_classes=3),
            "coarse_label": tfds.features.ClassLabel(num_classes=2),
        }
    )
    ours = example(2)
    fields = {"image": ours.image, "file_name": ours.file_name, **ours.labels}
    theirs = features.serialize_example(features.encode_example(fields))
    record = writer.serialize_example(ours)
    assert len(record) == len(theirs)  # TFDS does not fix the order of the fields
    skip = {"image": tfds.decode.SkipDecoding()}
    assert features.deserialize_example_np(record, decoders=skip) == {
        **ours.labels,
        "image": ours.image,
        "file_name": ours.file_name.encode(),
    }


def test_same_examples_same_bytes(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        info = writer.write_shard(path, map(example, range(7)), LABEL_NAMES)
        assert info == writer.ShardInfo(7, path.stat().st_size) == writer.read_shard_info(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert writer.read_shard_info(tmp_path / "c") is None


def test_a_shard_that_fails_leaves_no_shard(tmp_path):
    path = tmp_path / "shard.array_record-00000-of-00001"

    def broken():
        yield example(0)
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        writer.write_shard(path, broken(), LABEL_NAMES)
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1
    writer.remove_temporaries(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            writer.Example(b"GIF89a", {"label": 0, "coarse_label": 0}, "x.jpg"),
            "x.jpg: not a JPEG",
        ),
        (
            writer.Example(jpeg(0), {"label": 0}, "x.jpg"),
            r"x.jpg: has labels \['label'\], but the data set has \['coarse_label', 'label'\]",
        ),
        (
            writer.Example(jpeg(0), {"label": 3, "coarse_label": 0}, "x.jpg"),
            "x.jpg: label 3 is not one of 3 classes",
        ),
        (
            writer.Example(jpeg(0), {"label": 0, "coarse_label": -1}, "x.jpg"),
            "x.jpg: coarse_label -1 is not one of 2 classes",
        ),
    ],
)
def test_a_wrong_example_is_named(tmp_path, bad, message):
    with pytest.raises(ValueError, match=message):
        writer.write_shard(tmp_path / "shard", [example(0), bad], LABEL_NAMES)


def test_complete_only_with_whole_metadata(tmp_path):
    directory = tmp_path / "toy" / "1.2.3"
    assert not writer.is_complete(directory)
    write_set(directory)
    assert writer.is_complete(directory)
    info = directory / "dataset_info.json"
    whole = info.read_text()
    assert json.loads(whole)["fileFormat"] == "array_record"
    info.write_text(whole[: len(whole) // 2])
    assert not writer.is_complete(directory)
    info.unlink()
    assert not writer.is_complete(directory)
