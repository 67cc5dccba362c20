"""Opening a TFDS data set of array_record shards by its name, without TensorFlow."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, SupportsIndex

from pnet_jax.errors import UserError

DEMO_SET = "emoji"


class Record(NamedTuple):
    """One example as stored: the JPEG's bytes, its class, the name of the file it came from."""

    image: bytes
    label: int
    file_name: str


@dataclasses.dataclass(frozen=True)
class Records:
    """Random access to the records of a split."""

    source: Any
    label: str

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: SupportsIndex) -> Record:
        example = self.source[index]
        file_name = example.get("file_name", f"record {index}")
        if isinstance(file_name, bytes):
            file_name = file_name.decode()
        return Record(example["image"], int(example[self.label]), str(file_name))


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set whose files are all there."""

    directory: pathlib.Path
    builder: Any
    label: str
    class_names: tuple[str, ...]

    def split(self, name: str) -> Records:
        """The records of a split, or of a TFDS slice of one such as `train[:90%]`.

        Raises:
          UserError: if the data set has no such split.
        """
        import tensorflow_datasets as tfds

        if name.split("[")[0] not in self.builder.info.splits:
            raise UserError(
                f"The data set in {self.directory} has no split {name!r}; it has "
                f"{', '.join(self.builder.info.splits)}. Set config.data.train_split or eval_split."
            )
        source = self.builder.as_data_source(
            split=name, decoders={"image": tfds.decode.SkipDecoding()}
        )
        return Records(source, self.label)


def open_dataset(
    name: str, data_dir: str, *, label: str, build_demo: Callable[[str], object]
) -> Dataset:
    """The newest version of `data_dir/name`; the demo set is built at first use by `build_demo(data_dir)`.

    Args:
      name: the data set's directory below `data_dir`, such as `imagenet22k`.
      data_dir: where data sets live; `~` is expanded.
      label: the feature that holds the class.

    Raises:
      UserError: if the set is absent, unfinished or has no such label; the sentence says how to build it.
    """
    root = pathlib.Path(data_dir).expanduser()
    directory = _newest_version(root / name)
    if directory is None and name == DEMO_SET:
        build_demo(str(root))
        directory = _newest_version(root / name)
    if directory is None:
        raise UserError(
            f"There is no data set {name!r} in {root}. Build it there as array_record shards with TFDS "
            f"metadata, which pnet_jax.data.writer writes: docs/data.md has a program of twenty lines for a "
            f"folder of class folders. If it lies elsewhere, pass --config.data.data_dir=DIR. To try "
            f"everything without it, append ':demo' to the configuration's name."
        )
    # Importing TFDS takes half a second; a mistake in the name should not cost it.
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(directory)
    features = dict(builder.info.features)
    feature = features.get(label)
    if not isinstance(feature, tfds.features.ClassLabel):
        labels = [k for k, v in features.items() if isinstance(v, tfds.features.ClassLabel)]
        raise UserError(
            f"The data set in {directory} has no label {label!r}; it has {', '.join(labels)}. "
            f"Set config.data.label."
        )
    return Dataset(directory, builder, label, tuple(feature.names))


def _newest_version(directory: pathlib.Path) -> pathlib.Path | None:
    complete = [path.parent for path in directory.glob("*/dataset_info.json")]

    def version(path: pathlib.Path) -> tuple[int, ...]:
        return tuple(int(part) for part in path.name.split(".") if part.isdigit())

    return max(complete, key=version, default=None)
