"""Data sets open by name, and every way to miss one ends in a sentence with the remedy."""

import json

import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from pnet_jax.data import emoji, writer
from pnet_jax.data.datasets import Dataset, open_dataset
from pnet_jax.errors import UserError


def no_demo(data_dir: str) -> None:
    raise AssertionError("the demo set is not wanted")


def open_toy(data_dir, label: str = "label") -> Dataset:
    return open_dataset("toy", str(data_dir), label=label, build_demo=no_demo)


@pytest.fixture
def data_dir(write_set, jpeg):
    return write_set(
        {"train": [jpeg(i) for i in range(10)], "validation": [jpeg(99)]}, images_per_shard=4
    )


def test_records_are_what_was_written(data_dir, jpeg):
    dataset = open_toy(data_dir)
    assert dataset.directory == data_dir / "toy" / "1.0.0"
    assert dataset.class_names[:2] == ("class 0", "class 1")
    assert len(dataset.class_names) == 1000
    records = dataset.split("train")
    assert len(records) == 10
    for i in range(10):
        assert records[i] == (jpeg(i), i, f"train_{i}.jpg", i)
    assert dataset.split("validation")[0] == (jpeg(99), 0, "validation_0.jpg", 0)


def test_the_label_is_a_choice(data_dir):
    dataset = open_toy(data_dir, "coarse_label")
    assert dataset.class_names == ("even", "odd")
    records = dataset.split("train")
    assert [record.label for record in records] == [0, 1] * 5


def test_records_equal_those_that_tfds_decodes(data_dir):
    records = open_toy(data_dir).split("train")
    theirs = tfds.builder_from_directory(data_dir / "toy" / "1.0.0").as_data_source(
        "train", decoders={"image": tfds.decode.SkipDecoding()}
    )
    for i in range(10):
        expected = theirs[i]
        assert records[i].image == expected["image"]
        assert records[i].label == expected["label"]
        assert records[i].file_name == expected["file_name"].decode()


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("train[:50%]", [0, 1, 2, 3, 4]),
        ("train[80%:]", [8, 9]),
        ("train[3:6]", [3, 4, 5]),  # over the border of two shards
        ("train[:2]+validation", [0, 1, 0]),
    ],
)
def test_slices_of_splits(data_dir, name, labels):
    records = open_toy(data_dir).split(name)
    assert [record.label for record in records] == labels


@pytest.mark.parametrize("name", ["test", "test[:50%]", "train[:50", "train[a:b]", ""])
def test_a_wrong_split_is_named_beside_those_there_are(data_dir, name):
    with pytest.raises(UserError) as error:
        open_toy(data_dir).split(name)
    assert f"no split {name!r}; it has train, validation," in str(error.value)
    assert "config.data.train_split" in str(error.value)


def test_an_empty_split(data_dir):
    with pytest.raises(UserError, match=r"'train\[:0%\]' of the data set in .* is empty"):
        open_toy(data_dir).split("train[:0%]")


def test_a_missing_shard_is_named(data_dir):
    shard = "toy-train.array_record-00001-of-00003"
    (data_dir / "toy" / "1.0.0" / shard).unlink()
    dataset = open_toy(data_dir)
    with pytest.raises(UserError, match=f"1 of the 3 shards of split 'train' .* {shard} for one"):
        dataset.split("train")
    assert len(dataset.split("train[:4]")) == 4


def test_a_wrong_label_is_named_beside_those_there_are(data_dir):
    with pytest.raises(UserError, match=r"no label 'file_name'; it has coarse_label, label\. Set"):
        open_toy(data_dir, "file_name")


def test_an_absent_set_says_how_to_build_it(tmp_path):
    with pytest.raises(UserError) as error:
        open_toy(tmp_path)
    sentence = str(error.value)
    assert f"no data set 'toy' in {tmp_path}" in sentence
    for remedy in (
        "pnet_jax.build_data --name=toy",
        "docs/data.md",
        "--config.data.data_dir",
        ":demo",
    ):
        assert remedy in sentence


def test_the_newest_version_is_taken(write_set, jpeg):
    for version in ("1.9.0", "1.10.0", "1.2.11"):
        data_dir = write_set({"train": [jpeg(0)]}, version=version)
    assert open_toy(data_dir).directory.name == "1.10.0"


def test_an_unfinished_version_does_not_count(write_set, jpeg):
    write_set({"train": [jpeg(0)]}, version="1.0.0")
    data_dir = write_set({"train": [jpeg(0)]}, version="2.0.0")
    info = data_dir / "toy" / "2.0.0" / "dataset_info.json"
    info.write_text(info.read_text()[:100])  # killed while writing
    assert open_toy(data_dir).directory.name == "1.0.0"
    info.unlink()
    assert open_toy(data_dir).directory.name == "1.0.0"


def test_a_set_without_random_access(data_dir):
    path = data_dir / "toy" / "1.0.0" / "dataset_info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(UserError, match=r"stored as tfrecord, .* file_format='array_record'"):
        open_toy(data_dir)


def write_foreign(data_dir, features, examples) -> None:
    """A set that TFDS's own serialisation made, without our writer."""
    directory = data_dir / "toy" / "1.0.0"
    directory.mkdir(parents=True)
    path = writer.shard_path(directory, name="toy", split="train", index=0, num_shards=1)
    shard = ArrayRecordWriter(str(path), "group_size:1")
    for example in examples:
        shard.write(features.serialize_example(example))
    shard.close()
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    split_info = tfds.core.SplitInfo(
        name="train",
        shard_lengths=[len(examples)],
        num_bytes=path.stat().st_size,
        filename_template=tfds.core.ShardedFileTemplate(
            data_dir=directory,
            template=template,
            dataset_name="toy",
            split="train",
            filetype_suffix="array_record",
        ),
    )
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=features,
        split_infos=[split_info],
        version="1.0.0",
        filename_template=template,
        check_data=False,
    )


def test_a_set_of_something_else(tmp_path):
    features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
    write_foreign(tmp_path, features, [{"text": b"no image"}])
    with pytest.raises(UserError, match=r"not one for image classification.* it has text\."):
        open_toy(tmp_path)


def test_a_set_of_others_may_keep_no_names(tmp_path, jpeg):
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=3)}
    )
    write_foreign(tmp_path, features, [{"image": jpeg(i), "label": i} for i in (2, 1)])
    records = open_toy(tmp_path).split("train")
    assert records[1] == (jpeg(1), 1, "record 1", 1)


def test_the_demo_set_is_built_at_first_use_only(tmp_path):
    calls = []

    def build_small(data_dir: str) -> None:
        calls.append(data_dir)
        emoji.build(
            data_dir, image_size=16, num_train=6, num_validation=3, num_classes=3, processes=1
        )

    for _ in range(2):
        dataset = open_dataset("emoji", str(tmp_path), label="label", build_demo=build_small)
        assert calls == [str(tmp_path)]
    assert (len(dataset.split("train")), len(dataset.split("validation"))) == (6, 3)
    (tmp_path / "emoji" / "1.0.0" / "dataset_info.json").unlink()  # as if killed at the end
    open_dataset("emoji", str(tmp_path), label="label", build_demo=build_small)
    assert calls == [str(tmp_path)] * 2


def test_home_is_expanded(data_dir, monkeypatch):
    monkeypatch.setenv("HOME", str(data_dir.parent))
    assert len(open_toy(f"~/{data_dir.name}").split("train")) == 10
