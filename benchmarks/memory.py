"""Does anything grow with the number of classes and records? The peak memory of every process.

    python benchmarks/memory.py --out memory.json

Converts two trees of synset tars with tiny pictures, 1,000 classes of 10,000 and 21,841 classes of
200,000, and reads a thousand batches of each with decoding workers. Linux only: it reads /proc.
"""

import argparse
import io
import itertools
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator

import cv2
import numpy as np
import tqdm

from pnet_jax.data.build.classes import class_names
from pnet_jax.data.datasets import open_dataset
from pnet_jax.data.pipeline import Reading, train_batches
from pnet_jax.report.tables import format_table, write_table

PROCESSES = 2


def write_tars(folder: pathlib.Path, num_classes: int, num_images: int) -> None:
    """Tars of the first fall11 classes with 16 x 16 pictures, as many in each, give or take one."""
    rng = np.random.default_rng(0)
    pictures = [
        cv2.imencode(".jpg", rng.integers(0, 256, (16, 16, 3), np.uint8))[1].tobytes()
        for _ in range(64)
    ]
    for c, wnid in enumerate(tqdm.tqdm(class_names("fall11")[:num_classes], unit="tar")):
        with tarfile.open(folder / f"{wnid}.tar", "w") as tar:
            for i in range(c, num_images, num_classes):
                member = tarfile.TarInfo(f"{wnid}_{i}.JPEG")
                picture = pictures[i % len(pictures)]
                member.size = len(picture)
                tar.addfile(member, io.BytesIO(picture))


class Watch:
    """The peak resident MB of a process and its children, each by what it is, while it runs."""

    def __init__(self, pid: int) -> None:
        self.peaks: dict[str, float] = {}
        self._pid, self._done = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            for pid, depth in _family(self._pid):
                try:
                    status = pathlib.Path(f"/proc/{pid}/status").read_text()
                    command = pathlib.Path(f"/proc/{pid}/cmdline").read_text()
                except OSError:  # ended meanwhile
                    continue
                if "resource_tracker" in command or "VmHWM" not in status:
                    continue
                peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
                kind = "main process" if depth == 0 else "largest worker"
                self.peaks[kind] = max(self.peaks.get(kind, 0.0), peak)


def _family(pid: int, depth: int = 0) -> Iterator[tuple[int, int]]:
    yield pid, depth
    try:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    for child in children:
        yield from _family(int(child), depth + 1)


def read(data_dir: str, num_batches: int) -> None:
    """Reads batches with workers; run as a process of its own."""
    records = open_dataset("memory", data_dir, label="label", build_demo=print).split("train")
    how = Reading(64, 32, num_workers=PROCESSES, prefetch_batches=2)
    batches = train_batches(records, how, seed=0, start=0, area_min=0.08, area_max=1.0)
    for _ in itertools.islice(batches, num_batches):
        pass


def measure(num_classes: int, num_images: int) -> dict[str, str]:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, data_dir = pathlib.Path(temporary, "tars"), pathlib.Path(temporary, "data")
        folder.mkdir()
        write_tars(folder, num_classes, num_images)
        classes = pathlib.Path(temporary, "classes.txt")
        classes.write_text("\n".join(class_names("fall11")[:num_classes]))
        build = [sys.executable, "-m", "pnet_jax.build_data", f"--source={folder}"]
        build += [f"--classes={classes}", "--name=memory", f"--data-dir={data_dir}", "--shards=64"]
        row = {"classes": f"{num_classes:,}", "records": f"{num_images:,}"}
        verify = [sys.executable, "-m", "pnet_jax.build_data", "--verify", "--name=memory"]
        verify += [f"--data-dir={data_dir}"]
        reading = [sys.executable, __file__, "--read", str(data_dir)]
        for what, command in {
            "build": [*build, f"--processes={PROCESSES}"],
            "verify": verify,
            "read": reading,
        }.items():
            start = time.perf_counter()
            process = subprocess.Popen(command)
            with Watch(process.pid) as watch:
                if process.wait():
                    raise SystemExit(f"{what} failed")
            for kind, peak in sorted(watch.peaks.items(), reverse=True):
                row[f"{what}: {kind}, MB"] = f"{peak:.0f}"
            row[f"{what}, s"] = f"{time.perf_counter() - start:.0f}"
        size = sum(path.stat().st_size for path in data_dir.rglob("*") if path.is_file())
        row["disk, MB"] = f"{size / 1e6:.0f}"
        return row


def main() -> None:
    """Measures both sizes and prints their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, help="also write the table, as JSON")
    parser.add_argument("--read", metavar="DATA_DIR", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        read(args.read, 1000)
        return
    rows = [measure(1_000, 10_000), measure(21_841, 200_000)]
    columns = [{"": key, "small": rows[0][key], "large": rows[1][key]} for key in rows[0]]
    print(f"\n{format_table(columns)}")
    if args.out is not None:
        write_table(args.out, columns)


if __name__ == "__main__":
    main()
