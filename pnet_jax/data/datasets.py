"""Opening a TFDS data set of array_record shards by its name, without TensorFlow."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, SupportsIndex

from pnet_jax.data import writer
from pnet_jax.errors import UserError

DEMO_SET = "emoji"


class Record(NamedTuple):
    """One example as stored: the image file's bytes, its class, its name and place in the split."""

    image: bytes
    label: int
    file_name: str
    place: int


@dataclasses.dataclass(frozen=True)
class Records:
    """Random access to the records of a split.

    `source` is a TFDS data source that gives the bytes of each record. Taking three fields out of
    the message costs 9 us a record; TFDS's own decoding of all its features costs 30.
    """

    source: Any
    label: str

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: SupportsIndex) -> Record:
        place = index.__index__()
        return self.parse(self.source[place], place)

    def parse(self, serialized: bytes, place: int) -> Record:
        """The record in the bytes of a `tf.train.Example`."""
        from tensorflow_datasets.proto import tf_example_pb2

        fields = tf_example_pb2.Example.FromString(serialized).features.feature
        # A set written by others may keep no names.
        name = fields["file_name"].bytes_list.value if "file_name" in fields else ()
        return Record(
            image=fields["image"].bytes_list.value[0],
            label=fields[self.label].int64_list.value[0],
            file_name=name[0].decode(errors="replace") if name else f"record {place}",
            place=place,
        )


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set whose files are all there."""

    directory: pathlib.Path
    builder: Any
    label: str
    class_names: tuple[str, ...]

    def digest(self) -> str:
        """Twelve hexadecimal digits of what describes the set: equal for copies of one set."""
        files = (self.directory / name for name in ("dataset_info.json", "manifest.json"))
        content = b"".join(path.read_bytes() for path in files if path.is_file())
        return hashlib.sha256(content).hexdigest()[:12]

    def split(self, name: str) -> Records:
        """The records of a split, or of a TFDS slice of one such as `train[:90%]`.

        Raises:
          UserError: if there is no such split, nothing in it, or not every shard of it.
        """
        import tensorflow_datasets as tfds

        try:
            info = self.builder.info.splits[name]
        except (KeyError, ValueError) as error:
            raise UserError(
                f"The data set in {self.directory} has no split {name!r}; it has "
                f"{', '.join(self.builder.info.splits)}, and a part is written as 'train[:90%]'. "
                f"Set config.data.train_split and eval_split."
            ) from error
        if not info.num_examples:
            raise UserError(f"The split {name!r} of the data set in {self.directory} is empty.")
        missing = [file.name for file in info.filepaths if not file.exists()]
        if missing:
            raise UserError(
                f"{len(missing)} of the {len(info.filepaths)} shards of split {name!r} are not in "
                f"{self.directory}, {missing[0]} for one; copy or build them again."
            )
        source = self.builder.as_data_source(
            split=name, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        return Records(source, self.label)


def open_dataset(
    name: str, data_dir: str, *, label: str, build_demo: Callable[[str], object]
) -> Dataset:
    """The newest version of `data_dir/name`.

    The demo set is built at first use by `build_demo(data_dir)`.

    Args:
      name: the data set's directory below `data_dir`, such as `imagenet22k`.
      data_dir: where data sets live; `~` is expanded.
      label: the feature that holds the class.

    Raises:
      UserError: if the set is absent or unfinished, or not of images with such a label in
        array_record shards; the sentence says how to build it.
    """
    root = pathlib.Path(data_dir).expanduser()
    directory = _newest_version(root / name)
    if directory is None and name == DEMO_SET:
        build_demo(str(root))
        directory = _newest_version(root / name)
    if directory is None:
        raise UserError(
            f"There is no data set {name!r} in {root}. Build it there from tars or class "
            f"folders with python -m pnet_jax.build_data --name={name} (docs/data.md). If it lies "
            f"elsewhere, pass --config.data.data_dir=DIR. To try everything without it, append "
            f"':demo' to the configuration's name."
        )
    # Importing TFDS takes half a second; a mistake in the name should not cost it.
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(directory)
    if "array_record" not in {form.value for form in builder.info.available_file_formats()}:
        raise UserError(
            f"The data set in {directory} is stored as {builder.info.file_format.value}, which has "
            f"no random access; build it with file_format='array_record'."
        )
    features = dict(builder.info.features)
    labels = sorted(k for k, v in features.items() if isinstance(v, tfds.features.ClassLabel))
    if not isinstance(features.get("image"), tfds.features.Image) or not labels:
        raise UserError(
            f"The data set in {directory} is not one for image classification: it has no feature "
            f"'image' or no ClassLabel; it has {', '.join(sorted(features))}."
        )
    if label not in labels:
        raise UserError(
            f"The data set in {directory} has no label {label!r}; it has {', '.join(labels)}. "
            f"Set config.data.label."
        )
    return Dataset(directory, builder, label, tuple(features[label].names))


def _newest_version(directory: pathlib.Path) -> pathlib.Path | None:
    """The finished version with the highest number: 1.10.0 is newer than 1.9.0."""
    versions = {
        tuple(int(part) for part in path.name.split(".")): path
        for path in directory.glob("*.*.*")
        if path.name.replace(".", "").isdigit() and writer.is_complete(path)
    }
    return versions[max(versions)] if versions else None
