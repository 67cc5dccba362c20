"""What an image costs on its way from the disk to the device, stage by stage and as a whole.

Seconds are those of the processor, so that waiting for a disk or for another program does not
count; with worker processes those on the clock, too, as it is the point of them.
"""

import dataclasses
import io
import itertools
import multiprocessing
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import tqdm

from pnet_jax.augment.normalize import MEAN, STD
from pnet_jax.data import decode as decoding
from pnet_jax.data.crop import Box, random_box, resize
from pnet_jax.data.datasets import Records
from pnet_jax.data.decode import decode_part
from pnet_jax.data.pipeline import Reading, train_batches

AREA: dict[str, Any] = {"area_min": 0.08, "area_max": 1.0}


@dataclasses.dataclass(frozen=True)
class Measured:
    """Seconds of computing an image costs; `wall_secs` on the clock, where that is of interest."""

    name: str
    cpu_secs: float
    wall_secs: float | None = None

    def row(self) -> dict[str, str]:
        """A line of the table."""
        per_sec = 1 / self.cpu_secs
        row = {
            "stage": self.name,
            "us an image": f"{1e6 * self.cpu_secs:.1f}",
            "images/s/core": f"{per_sec:,.0f}" if per_sec < 1e6 else "-",
        }
        if self.wall_secs is not None:
            row["images/s"] = f"{1 / self.wall_secs:,.0f}"
        return row


def stages(records: Records, *, image_size: int, num_images: int, rounds: int) -> list[Measured]:
    """Each stage alone, the whole, the whole by other means, and the floor, in turns.

    The floor is what libjpeg-turbo needs to read the coefficients of a whole JPEG; it, and the
    decoding of a part, are only there if the optional module was built.
    """
    order = np.random.default_rng(0).permutation(len(records))[:num_images].tolist()
    serialized = [records.source[place] for place in order]
    pairs = list(zip(serialized, order, strict=True))
    encoded = [records.parse(bytes_, place).image for bytes_, place in pairs]
    rng = np.random.default_rng(1)

    def choose(height: int, width: int) -> Box:
        return random_box(height, width, rng, **AREA)

    def cut(image: bytes) -> np.ndarray:
        part = decode_part(image, choose)
        assert part is not None, "a picture of the set cannot be decoded"
        return resize(part, image_size)

    images = [cut(image) for image in encoded]
    batch_size = min(100, num_images)
    parts = [images[i : i + batch_size] for i in range(0, num_images, batch_size)]
    batches = [np.stack(part) for part in parts]
    whole = _Whole(records, Reading(batch_size, image_size, num_threads=0))
    functions: dict[str, Callable[[], object]] = {
        "read": lambda: [records.source[place] for place in order],
        "parse": lambda: [records.parse(*pair) for pair in pairs],
        "decode, crop, resize": lambda: [cut(image) for image in encoded],
        "batch": lambda: [np.stack(part) for part in parts],
        "transfer": lambda: jax.block_until_ready([jax.device_put(batch) for batch in batches]),
        "end to end, in process": lambda: whole.take(num_images // batch_size),
        "Pillow and float32": lambda: [_by_pillow(image, image_size, rng) for image in encoded],
    }
    if (module := decoding.jpeg) is not None:
        functions["end to end, all of the JPEG by OpenCV"] = lambda: whole.without(
            num_images // batch_size
        )
        functions["entropy decoding alone, the floor"] = lambda: [
            module.entropy_decode(image) for image in encoded
        ]
    secs: dict[str, list[float]] = {name: [] for name in functions}
    for _ in tqdm.trange(rounds, unit="round"):
        for name, function in functions.items():
            start = time.process_time()
            function()
            secs[name].append((time.process_time() - start) / num_images)
    return [Measured(name, float(np.median(each))) for name, each in secs.items()]


def with_workers(
    records: Records, num_workers: int, *, image_size: int, num_images: int
) -> Measured:
    """The main process's cost of an image and the rate, with so many decoding processes."""
    batch_size = 100
    count = max(2, num_images // batch_size)
    how = Reading(batch_size, image_size, num_workers=num_workers, prefetch_batches=num_workers)
    batches = train_batches(records, how, seed=0, start=0, **AREA)
    for _ in range(num_workers):  # until all of them run
        next(batches)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(count):
        next(batches)
    measured = Measured(
        f"main process beside {num_workers} worker" + ("s" if num_workers > 1 else ""),
        (time.process_time() - cpu) / (count * batch_size),
        (time.perf_counter() - wall) / (count * batch_size),
    )
    batches.close()  # type: ignore[attr-defined]
    return measured


def verdict(measured: Sequence[Measured], images_per_sec: float) -> list[str]:
    """What the numbers mean for an accelerator that takes so many images a second."""
    found = {each.name: each.cpu_secs for each in measured}
    cost = found["end to end, in process"]
    cores = multiprocessing.cpu_count()
    needed = images_per_sec * cost
    limits = "is" if needed > cores else "is not"
    lines = [
        f"{images_per_sec:,.0f} images/s need {needed:,.1f} cores; this machine has "
        f"{cores}, enough for {cores / cost:,.0f} images/s: the input {limits} the limit.",
        f"{found['Pillow and float32'] / cost:.2f} times the rate of Pillow and float32.",
    ]
    if floor := found.get("entropy decoding alone, the floor"):
        lines.append(f"{floor / cost:.0%} of the rate of entropy decoding alone.")
    else:
        lines.append("Without the optional C module: install libjpeg-turbo's headers for more.")
    return lines


class _Whole:
    """The training stream in this process, without threads, so that all of it is counted."""

    def __init__(self, records: Records, reading: Reading) -> None:
        self._batches = train_batches(records, reading, seed=0, start=0, **AREA)

    def take(self, count: int) -> None:
        for _ in itertools.islice(self._batches, count):
            pass

    def without(self, count: int) -> None:
        """The same with the optional module taken away."""
        module, decoding.jpeg = decoding.jpeg, None
        try:
            self.take(count)
        finally:
            decoding.jpeg = module


def _by_pillow(encoded: bytes, size: int, rng: np.random.Generator) -> np.ndarray:
    """The usual loader: decode, random resized crop, flip, normalised floats on the host."""
    from PIL import Image

    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    box = random_box(image.height, image.width, rng, **AREA)
    corners = (box.left, box.top, box.left + box.width, box.top + box.height)
    image = image.resize((size, size), Image.Resampling.BILINEAR, box=corners)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
    return (np.asarray(image, np.float32) - mean) / std
