"""How fast `build_data` converts on this machine, and what more processes bring.

    python benchmarks/converter.py --processes 1 2 --out converter.json

Converts tars of pictures of ImageNet's size, with each number of processes in turn.
"""

import argparse
import io
import pathlib
import resource
import subprocess
import sys
import tarfile
import tempfile
import time

from pnet_jax.bench.timing import machine
from pnet_jax.data.build.classes import class_names
from pnet_jax.data.generated import jpegs
from pnet_jax.report.tables import format_table, write_table


def write_tars(folder: pathlib.Path, count: int, num_tars: int = 20) -> pathlib.Path:
    """Tars of the first fall11 classes; returns the list of these classes."""
    pictures, classes = jpegs(200), class_names("fall11")[:num_tars]
    for c, wnid in enumerate(classes):
        with tarfile.open(folder / f"{wnid}.tar", "w") as tar:
            for i in range(c, count, num_tars):
                member, picture = tarfile.TarInfo(f"{wnid}_{i}.JPEG"), pictures[i % len(pictures)]
                member.size = len(picture)
                tar.addfile(member, io.BytesIO(picture))
    listed = folder.parent / "classes.txt"
    listed.write_text("\n".join(classes))
    return listed


def measure(folder: pathlib.Path, classes: pathlib.Path, processes: int, count: int) -> dict:
    """A row of the table: images a second on the clock, and of the processor's time."""
    with tempfile.TemporaryDirectory() as data_dir:
        command = [sys.executable, "-m", "pnet_jax.build_data", f"--source={folder}"]
        command += [f"--classes={classes}", "--name=converted", f"--data-dir={data_dir}"]
        command += ["--shards=16", f"--processes={processes}"]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "processes": str(processes),
        "images": f"{count:,}",
        "images/s": f"{count / wall:,.0f}",
        "images/s/core": f"{count / cpu:,.0f}",
    }


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    parser.add_argument("--out", type=pathlib.Path, help="also write the table, as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary, "tars")
        folder.mkdir()
        classes = write_tars(folder, args.images)
        rows = [measure(folder, classes, each, args.images) for each in args.processes]
    print(f"\n{format_table(rows)}\n")
    print(" · ".join(f"{key} {value}" for key, value in machine().items()))
    if args.out is not None:
        write_table(args.out, [row | machine() for row in rows])


if __name__ == "__main__":
    main()
