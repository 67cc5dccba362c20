"""Records to batches of uint8 images, by grain.

The order of training images and every random crop depend on (seed, position in the stream) alone:
batch b holds the positions b B ... (b + 1) B - 1 whatever the number of processes and threads, and
starting at batch b needs nothing but the number b, which a checkpoint stores.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import Any, SupportsIndex

import grain
import numpy as np

from pnet_jax.data.datasets import Record, Records
from pnet_jax.data.decode import central_crop, decode, random_resized_crop

# `image` `[B, S, S, 3]` uint8, `label` `[B]` int32, `weight` `[B]` float32, and in training `index`
# `[B]` int64, the record's place in the split; an example: no `B`.
Batch = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a process takes its share of the batches."""

    global_batch_size: int
    image_size: int
    process_index: int = 0
    process_count: int = 1
    num_threads: int = 16
    prefetch_batches: int = 4


def train_batches(
    records: Records, reading: Reading, *, seed: int, start: int, area_min: float, area_max: float
) -> Iterator[Batch]:
    """Endless shuffled batches from number `start` on.

    Each epoch has an order of its own; an epoch's last batch runs over into the next epoch. An
    image that cannot be decoded is named in the log and comes out black with weight 0.
    """

    def prepare(record: Record, rng: np.random.Generator) -> Batch:
        image, weight = _decoded(record), 0.0
        if image is not None:
            weight = 1.0
            image = random_resized_crop(
                image, reading.image_size, rng, area_min=area_min, area_max=area_max
            )
        example = _example(image, record.label, reading.image_size, weight=weight)
        return example | {"index": np.int64(record.place)}

    stream = grain.MapDataset.source(records).seed(seed).shuffle().repeat().random_map(prepare)
    return _batches(stream, reading, start)


def eval_batches(records: Records, reading: Reading, *, share: float) -> Iterator[Batch]:
    """Every record once, in order; the last batch is filled up with examples of weight 0.

    An image that cannot be decoded is named in the log and counts as one that no answer fits: label
    -1, weight 1. The examples that fill up have label -1, weight 0.
    """

    def prepare(record: Record | None) -> Batch:
        if record is None:
            return _example(None, -1, reading.image_size, weight=0.0)
        image = _decoded(record)
        if image is None:
            return _example(None, -1, reading.image_size, weight=1.0)
        image = central_crop(image, reading.image_size, share=share)
        return _example(image, record.label, reading.image_size, weight=1.0)

    padded = _Padded(records, reading.global_batch_size)
    return _batches(_mapped(padded, prepare), reading, 0)


def num_eval_batches(num_examples: int, global_batch_size: int) -> int:
    """Batches that hold every example once, the last one filled up."""
    return -(-num_examples // global_batch_size)


@dataclasses.dataclass(frozen=True)
class _Padded:
    """The records and then None, up to whole batches: grain itself drops None only if asked to."""

    records: Records
    multiple: int

    def __len__(self) -> int:
        return num_eval_batches(len(self.records), self.multiple) * self.multiple

    def __getitem__(self, index: SupportsIndex) -> tuple[Record | None]:
        i = index.__index__()
        return (self.records[i] if i < len(self.records) else None,)


def _mapped(padded: _Padded, prepare: Callable[[Record | None], Batch]) -> Any:
    return grain.MapDataset.source(padded).map(lambda boxed: prepare(boxed[0]))


def _batches(stream: Any, reading: Reading, start: int) -> Iterator[Batch]:
    """This process's part of the global batches from number `start` on, decoded in threads."""
    # Rounding the number of batches up would overflow an endless stream's if they are of one image.
    parts = stream.batch(reading.global_batch_size // reading.process_count, drop_remainder=True)
    # Neighbours stay together, so that the global batch is the same for any number of processes.
    batches = parts[reading.process_index :: reading.process_count][start:]
    # After `.batch` the buffer is counted in batches, one of which a thread decodes at a time.
    options = grain.ReadOptions(
        num_threads=min(reading.num_threads, reading.prefetch_batches),
        prefetch_buffer_size=reading.prefetch_batches,
    )
    return iter(batches.to_iter_dataset(options))


def _decoded(record: Record) -> np.ndarray | None:
    image = decode(record.image)
    if image is None:
        logging.warning("corrupt image, skipped: %s", record.file_name)
    return image


def _example(image: np.ndarray | None, label: int, size: int, *, weight: float) -> Batch:
    if image is None:
        image = np.zeros((size, size, 3), np.uint8)
    return {"image": image, "label": np.int32(label), "weight": np.float32(weight)}
