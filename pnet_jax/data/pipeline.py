"""Records to batches of uint8 images, by grain.

The order of training images and every random crop depend on (seed, position in the stream) alone:
batch b holds the positions b B ... (b + 1) B - 1 whatever the number of processes and threads, and
starting at batch b needs nothing but the number b, which a checkpoint stores.
"""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, SupportsIndex

import grain
import numpy as np
from absl import flags
from grain.multiprocessing import SharedMemoryArray

from pnet_jax.data.crop import Box, central_box, random_box, resize, resize_smoothly
from pnet_jax.data.datasets import Record, Records
from pnet_jax.data.decode import decode_part
from pnet_jax.errors import TrainingError

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
    # Processes that decode; 0 = this one does, by its threads.
    num_workers: int = 0
    prefetch_batches: int = 4


def train_batches(
    records: Records,
    reading: Reading,
    *,
    seed: int,
    start: int,
    area_min: float,
    area_max: float,
    repeats: int = 1,
) -> Iterator[Batch]:
    """Endless shuffled batches from number `start` on.

    Each epoch has an order of its own; an epoch's last batch runs over into the next epoch. Each
    image comes `repeats` times in a row, each time with a crop of its own. An image that cannot be
    decoded is named in the log and comes out black with weight 0.
    """

    def prepare(record: Record, rng: np.random.Generator) -> Batch:
        def choose(height: int, width: int) -> Box:
            return random_box(height, width, rng, area_min=area_min, area_max=area_max)

        pixels = _decoded(record, choose)
        image = None if pixels is None else resize(pixels, reading.image_size)
        weight = 0.0 if image is None else 1.0
        example = _example(image, record.label, reading.image_size, weight=weight)
        return example | {"index": np.int64(record.place)}

    stream = grain.MapDataset.source(records).seed(seed).shuffle().repeat()
    if repeats > 1:
        stream = _Repeated(stream, repeats)
    return _batches(stream.random_map(prepare), reading, start)


def eval_batches(records: Records, reading: Reading, *, share: float) -> Iterator[Batch]:
    """Every record once, in order; the last batch is filled up with examples of weight 0.

    An image that cannot be decoded is named in the log and counts as one that no answer fits: label
    -1, weight 1. The examples that fill up have label -1, weight 0.
    """

    def choose(height: int, width: int) -> Box:
        return central_box(height, width, share=share)

    def prepare(record: Record | None) -> Batch:
        if record is None:
            return _example(None, -1, reading.image_size, weight=0.0)
        pixels = _decoded(record, choose)
        if pixels is None:
            return _example(None, -1, reading.image_size, weight=1.0)
        image = resize_smoothly(pixels, reading.image_size)
        return _example(image, record.label, reading.image_size, weight=1.0)

    padded = _Padded(records, reading.global_batch_size)
    return _batches(_mapped(padded, prepare), reading, 0)


def num_eval_batches(num_examples: int, global_batch_size: int) -> int:
    """Batches that hold every example once, the last one filled up."""
    return -(-num_examples // global_batch_size)


class _Repeated(grain.MapDataset[Record]):
    """Each record of an endless stream `times` in a row."""

    def __init__(self, parent: grain.MapDataset[Record], times: int) -> None:
        super().__init__(parent)
        self._times = times

    def __len__(self) -> int:
        return len(self._parent)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        return self._parent[index // self._times]


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
    """This process's part of the global batches from number `start` on, decoded ahead."""
    # Parts of global batches: process i of n has parts i, i + n, ..., so that side by side they are
    # the batch that one process would have. (Rounding the number of parts up would overflow an
    # endless stream's if they are of one image.)
    parts = stream.batch(reading.global_batch_size // reading.process_count, drop_remainder=True)
    batches = parts[reading.process_index :: reading.process_count][start:]
    if not reading.num_workers:
        # After `.batch` the buffer is counted in batches, one of which a thread decodes at a time.
        threads = min(reading.num_threads, reading.prefetch_batches)
        return iter(batches.to_iter_dataset(grain.ReadOptions(threads, reading.prefetch_batches)))
    # Worker i of n takes the batches i, i + n, ... and they come back in their order, so that the
    # number of workers changes nothing. One thread each: Python's lock is what workers get around.
    ahead = -(-reading.prefetch_batches // reading.num_workers)
    workers = grain.MultiprocessingOptions(reading.num_workers, per_worker_buffer_size=ahead)
    if not flags.FLAGS.is_parsed():
        # Workers are handed absl's flags, which are unparsed outside absl.app.run, and refuse them.
        flags.FLAGS.mark_as_parsed()
    decoded = batches.to_iter_dataset(grain.ReadOptions(1, 1)).map(_GivenBackByWorker())
    return _from_workers(decoded.mp_prefetch(workers))


class _GivenBackByWorker:
    """Images into memory that the main process shares and the worker gives back.

    Giving an image back costs the kernel 20 us, which whoever lets go of the memory last pays. So
    the worker keeps each batch open until the main process has removed the memory's name.
    """

    def __init__(self) -> None:
        self._open: list[int] = []

    def __call__(self, batch: Batch) -> Batch:
        for file in [file for file in self._open if os.fstat(file).st_nlink == 0]:
            os.close(file)
            self._open.remove(file)
        images = SharedMemoryArray(batch["image"].shape, np.uint8)
        np.copyto(images, batch["image"])
        # Only Linux shows the memory as a file.
        with contextlib.suppress(FileNotFoundError):
            self._open.append(os.open(f"/dev/shm/{images.metadata.name}", os.O_RDONLY))
        return batch | {"image": images}


def _from_workers(dataset: Any) -> Iterator[Batch]:
    iterator = iter(dataset)
    try:
        yield from iterator
    except RuntimeError as error:
        if "Worker process was terminated" not in str(error):
            raise
        raise TrainingError(
            "A decoding process was killed, as Linux does when memory runs out; set a smaller "
            "config.data.num_workers or prefetch_batches. The same command goes on after the last "
            "checkpoint."
        ) from error
    finally:
        iterator.close()


def _decoded(record: Record, choose: Callable[[int, int], Box]) -> np.ndarray | None:
    pixels = decode_part(record.image, choose)
    if pixels is None:
        logging.warning("corrupt image, skipped: %s", record.file_name)
    return pixels


def _example(image: np.ndarray | None, label: int, size: int, *, weight: float) -> Batch:
    if image is None:
        image = np.zeros((size, size, 3), np.uint8)
    return {"image": image, "label": np.int32(label), "weight": np.float32(weight)}
