"""Images of the data set that a run was trained on, prepared as evaluation prepares them."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from pnet_jax import workdir as workdirs
from pnet_jax.config import DataConfig
from pnet_jax.convert.source import Source
from pnet_jax.data import emoji
from pnet_jax.data.datasets import Records, open_dataset
from pnet_jax.data.pipeline import Batch, Reading, eval_batches
from pnet_jax.errors import UserError

_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Pictures:
    """A split, or a part of one."""

    name: str  # such as emoji/validation
    records: Records
    image_size: int
    eval_crop: float

    def __len__(self) -> int:
        return len(self.records)

    def spread(self, number: int) -> "Pictures":
        """So many at equal distances: splits may be in the order of the classes.

        Raises:
          UserError: if there are fewer.
        """
        if number > len(self):
            raise UserError(f"{self.name} has {len(self):,} images, not {number:,}; take fewer.")
        places = np.linspace(0, len(self) - 1, number).astype(int)
        source = [self.records.source[int(place)] for place in places]
        return dataclasses.replace(self, records=dataclasses.replace(self.records, source=source))

    def batches(self) -> Iterator[Batch]:
        """Each image once: `image` `[B, S, S, 3]` uint8, and `label`, -1 where it is corrupt.

        `weight` is 0 for what fills up the last batch.
        """
        reading = Reading(global_batch_size=_BATCH, image_size=self.image_size)
        return eval_batches(self.records, reading, share=self.eval_crop)


def open_pictures(source: Source, split: str, *, data_dir: str | None = None) -> Pictures:
    """The run's "train" or "eval" split.

    Args:
      source: a checkpoint of the run.
      split: which of the two.
      data_dir: where the data set lies if not where the run had it.

    Raises:
      UserError: if the run has no data set, it is not there, or it has other classes.
    """
    said = workdirs.read_config(source.workdir).get("data")
    if not isinstance(said, dict) or "name" not in said:
        raise UserError(
            f"{source.workdir} names no data set to take images from; give the --workdir of a run."
        )
    fields = {field.name for field in dataclasses.fields(DataConfig)}
    data = DataConfig(**{key: value for key, value in said.items() if key in fields})
    dataset = open_dataset(
        data.name, data_dir or data.data_dir, label=data.label, build_demo=emoji.build
    )
    if len(dataset.class_names) != source.num_classes:
        raise UserError(
            f"The data set in {dataset.directory} has {len(dataset.class_names)} classes and the "
            f"network {source.num_classes}; name the run's own by --data-dir."
        )
    chosen = {"train": data.train_split, "eval": data.eval_split}[split]
    prepared = source.preprocessing
    return Pictures(
        f"{data.name}/{chosen}", dataset.split(chosen), prepared.image_size, prepared.eval_crop
    )
