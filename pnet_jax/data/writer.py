"""The one writer of data sets: JPEG records in array_record shards, with TFDS metadata.

A data set is a directory of shards and, written last, the metadata that TFDS reads:

    NAME/VERSION/NAME-train.array_record-00000-of-00025
                 ...
                 NAME/VERSION/features.json, *.labels.txt
                 NAME/VERSION/dataset_info.json     <- present only if the set is complete

so `tfds.builder_from_directory(DIR).as_data_source("train")` reads it, without TensorFlow. Shards
are independent: any number of processes may write different ones, and one that exists is whole.

TFDS is imported where it is used: most of this module, and telling that a set is complete, does
without, and it takes .4 s.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

# One record a group and no compression: pictures are compressed already, and a random read of one
# record then decodes nothing else (72 us against 126 with the default brotli).
ARRAY_RECORD_OPTIONS = "group_size:1,uncompressed"


@dataclasses.dataclass(frozen=True)
class Example:
    """One labelled picture: a JPEG file's bytes, a class index for each label key, a name."""

    image: bytes
    labels: Mapping[str, int]
    file_name: str


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """What the metadata must know of a shard; `num_bytes` is the size of its file."""

    num_examples: int
    num_bytes: int


def shard_path(
    directory: pathlib.Path, *, name: str, split: str, index: int, num_shards: int
) -> pathlib.Path:
    """The file of one shard, named as TFDS expects."""
    return directory / f"{name}-{split}.array_record-{index:05d}-of-{num_shards:05d}"


def serialize_example(example: Example) -> bytes:
    """A tf.train.Example with the fields `image`, `file_name` and one integer for each label.

    Filling the message directly takes 9 us; TFDS's `features.serialize_example` takes 28.
    """
    from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

    def of_bytes(value: bytes) -> "tf_feature_pb2.Feature":
        return tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[value]))

    features = {
        key: tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=[label]))
        for key, label in example.labels.items()
    }
    features["image"] = of_bytes(example.image)
    features["file_name"] = of_bytes(example.file_name.encode())
    message = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=features))
    return message.SerializeToString(deterministic=True)


def write_shard(
    path: pathlib.Path, examples: Iterable[Example], label_names: Mapping[str, Sequence[str]]
) -> ShardInfo:
    """Writes one shard: under a temporary name, then synced to disk and renamed.

    A process killed on the way leaves at most a hidden temporary file of its own; see
    `remove_temporaries`.

    Args:
      path: from `shard_path`; its directory is made if need be.
      examples: may be a generator; consumed once.
      label_names: the class names of each label key, as for `write_metadata`.

    Raises:
      ValueError: an example that is not a JPEG, or whose labels do not fit `label_names`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    writer = ArrayRecordWriter(str(temporary), ARRAY_RECORD_OPTIONS)
    num_examples = 0
    try:
        for example in examples:
            _check(example, label_names)
            writer.write(serialize_example(example))
            num_examples += 1
    finally:
        writer.close()
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    return ShardInfo(num_examples, path.stat().st_size)


def remove_temporaries(directory: pathlib.Path) -> None:
    """Removes what killed processes left behind; for whoever is the only builder in `directory`."""
    for path in directory.glob(".*.array_record-*.tmp"):
        path.unlink(missing_ok=True)


def read_shard_info(path: pathlib.Path) -> ShardInfo | None:
    """The info of a shard written before, or None if it does not exist."""
    if not path.exists():
        return None
    reader = ArrayRecordReader(str(path))
    try:
        return ShardInfo(reader.num_records(), path.stat().st_size)
    finally:
        reader.close()


def write_metadata(
    directory: pathlib.Path,
    *,
    name: str,
    version: str,
    splits: Mapping[str, Sequence[ShardInfo]],
    label_names: Mapping[str, Sequence[str]],
    description: str,
    homepage: str | None = None,
) -> None:
    """Declares the shards in `directory` to TFDS; to be called when all of them are written.

    The features are `image`, `file_name`, and a `ClassLabel` for each key of `label_names`.

    Args:
      splits: split name -> the infos of its shards, in the order of their indices.
      label_names: label key -> names of its classes, by index.
    """
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "file_name": tfds.features.Text(),
            **{
                key: tfds.features.ClassLabel(names=list(names))
                for key, names in label_names.items()
            },
        }
    )
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    split_infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[info.num_examples for info in shards],
            num_bytes=sum(info.num_bytes for info in shards),
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir=directory,
                template=template,
                dataset_name=name,
                split=split,
                filetype_suffix="array_record",
            ),
        )
        for split, shards in splits.items()
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=features,
        split_infos=split_infos,
        version=version,
        filename_template=template,
        check_data=False,  # would read through TensorFlow
        description=description,
        homepage=homepage,
    )


def is_complete(directory: pathlib.Path) -> bool:
    """Whether `directory` holds a finished data set: TFDS writes `dataset_info.json` last.

    A file cut short (the process was killed while writing it) does not count.
    """
    try:
        json.loads((directory / "dataset_info.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return False
    return True


def _check(example: Example, label_names: Mapping[str, Sequence[str]]) -> None:
    if not example.image.startswith(b"\xff\xd8\xff"):
        raise ValueError(f"{example.file_name}: not a JPEG")
    if example.labels.keys() != label_names.keys():
        raise ValueError(
            f"{example.file_name}: has labels {sorted(example.labels)}, "
            f"but the data set has {sorted(label_names)}"
        )
    for key, label in example.labels.items():
        if not 0 <= label < len(label_names[key]):
            raise ValueError(
                f"{example.file_name}: {key} {label} is not one of {len(label_names[key])} classes"
            )
