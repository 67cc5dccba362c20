"""The metric files, above all that a run killed anywhere and resumed leaves the same bytes."""

import csv
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.errors import UserError
from pnet_jax.report.jsonl import JsonlWriter, Record, read_records
from pnet_jax.report.writers import MetricWriters

LAST_STEP = 4
FILES = ("metrics.jsonl", "metrics_train.csv", "metrics_eval.csv")


def write_step(writers: MetricWriters, step: int) -> None:
    """What a run logs at a step; the numbers have no short decimal form, like real ones."""
    writers.write(step, "train", {"epoch": step / 4, "train/loss": math.exp(-step / 3)})
    writers.write(step, "timing", {"images_per_sec": 100.0 / step, "step_secs": 0.1})
    if step % 2 == 0:
        writers.write(step, "eval", {"eval/top1": math.sqrt(step) / 7, "eval/count": 50})


def run(workdir: Path, *, first: int, last: int = LAST_STEP) -> None:
    with MetricWriters(workdir, resume_step=first - 1) as writers:
        for step in range(first, last + 1):
            write_step(writers, step)


def contents(workdir: Path) -> dict[str, bytes]:
    return {name: (workdir / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that was never killed."""
    workdir = tmp_path_factory.mktemp("whole")
    run(workdir, first=1)
    return workdir


def test_files_of_a_run(whole: Path) -> None:
    lines = (whole / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == LAST_STEP + 2
    assert (
        lines[0]
        == f'{{"kind": "train", "step": 1, "epoch": 0.25, "train/loss": {math.exp(-1 / 3)!r}}}'
    )
    assert (
        lines[5] == '{"kind": "eval", "step": 4, "eval/top1": 0.2857142857142857, "eval/count": 50}'
    )
    rows = list(csv.DictReader((whole / "metrics_train.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == list(range(1, LAST_STEP + 1))
    assert [float(row["train/loss"]) for row in rows] == [math.exp(-s / 3) for s in range(1, 5)]
    assert (whole / "metrics_eval.csv").read_text() == (
        f"step,eval/top1,eval/count\n2,{math.sqrt(2) / 7!r},50\n4,0.2857142857142857,50\n"
    )


def test_timing_is_apart_and_has_the_time_of_day(whole: Path) -> None:
    records = read_records(whole / "timing.jsonl")
    assert [record.step for record in records] == list(range(1, LAST_STEP + 1))
    assert list(records[1].scalars) == ["images_per_sec", "step_secs", "unix_time_secs"]
    assert records[1].scalars["images_per_sec"] == 50.0
    assert 0 <= time.time() - records[-1].scalars["unix_time_secs"] < 600
    assert b"timing" not in (whole / "metrics.jsonl").read_bytes()


def possible_checkpoints(content: bytes, size: int) -> list[int]:
    """Steps whose checkpoint can exist beside a file cut at `size`: all their records are in it."""
    steps = []
    for step in range(LAST_STEP + 1):
        lines = [line for line in content.splitlines() if json.loads(line)["step"] <= step]
        # The newline alone may be missing: a record without it is still whole.
        if len(b"\n".join(lines)) <= size:
            steps.append(step)
    return steps


def test_metrics_after_a_kill_at_every_byte(whole: Path, tmp_path: Path) -> None:
    content = (whole / "metrics.jsonl").read_bytes()
    records = read_records(whole / "metrics.jsonl")
    path = tmp_path / "metrics.jsonl"
    resumed = 0
    for size in range(len(content) + 1):
        checkpoints = possible_checkpoints(content, size)
        # The newest at every byte, older ones now and then: each resume waits for the disk.
        for checkpoint in checkpoints if size % 16 == 0 else checkpoints[-1:]:
            path.write_bytes(content[:size])
            with JsonlWriter(path, resume_step=checkpoint) as writer:
                assert writer.kept == [r for r in records if r.step <= checkpoint]
                for record in records[len(writer.kept) :]:
                    writer.write(record)
            assert path.read_bytes() == content, (size, checkpoint)
            resumed += 1
    assert resumed > len(content)


def test_all_files_after_a_kill(whole: Path, tmp_path: Path) -> None:
    content = (whole / "metrics.jsonl").read_bytes()
    for size in range(0, len(content) + 1, 11):
        workdir = tmp_path / str(size)
        workdir.mkdir()
        (workdir / "metrics.jsonl").write_bytes(content[:size])
        (workdir / "timing.jsonl").write_bytes((whole / "timing.jsonl").read_bytes() + b'{"kin')
        (workdir / "metrics_train.csv").write_bytes(b"step,epoch,tra")
        (workdir / ".metrics.jsonl.partial").write_bytes(b"{")
        checkpoint = possible_checkpoints(content, size)[-1]
        run(workdir, first=checkpoint + 1)
        assert contents(workdir) == contents(whole), (size, checkpoint)
        steps = [record.step for record in read_records(workdir / "timing.jsonl")]
        assert steps == list(range(1, LAST_STEP + 1))


def test_a_killed_process_has_flushed_every_record(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, signal\n"
        "from pnet_jax.report.writers import MetricWriters\n"
        f"writers = MetricWriters(pathlib.Path({str(tmp_path)!r}), resume_step=0)\n"
        "for step in range(1, 6):\n"
        "    writers.write(step, 'train', {'train/loss': 1 / step})\n"
        "    writers.write(step, 'timing', {'step_secs': 0.5})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [r.step for r in read_records(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert [r.step for r in read_records(tmp_path / "timing.jsonl")] == [1, 2, 3, 4, 5]
    assert (tmp_path / "metrics_train.csv").read_text().splitlines()[-1] == "5,0.2"
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    (events_file,) = (tmp_path / "tensorboard").iterdir()
    steps = [event.step for event in EventFileLoader(str(events_file)).Load()]
    assert steps == [0, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]  # version, session start, the records


@pytest.mark.parametrize("garbage", [b"\x00" * 64, b"\xff\xfe", b"[1]\n", b'{"kind": "train"}\n'])
def test_garbage_in_a_file_is_dropped(whole: Path, tmp_path: Path, garbage: bytes) -> None:
    lines = (whole / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    damaged = b"".join(lines[:3]) + garbage
    (tmp_path / "metrics.jsonl").write_bytes(damaged)
    run(tmp_path, first=3)
    assert contents(tmp_path) == contents(whole)


def test_a_record_made_again_at_the_resumed_step_is_not_doubled(
    whole: Path, tmp_path: Path
) -> None:
    run(tmp_path, first=1)
    with MetricWriters(tmp_path, resume_step=LAST_STEP) as writers:
        write_step(writers, LAST_STEP)
    assert contents(tmp_path) == contents(whole)


def test_an_unchanged_file_is_not_replaced(tmp_path: Path) -> None:
    run(tmp_path, first=1)
    inode = (tmp_path / "metrics.jsonl").stat().st_ino
    run(tmp_path, first=LAST_STEP + 1)
    assert (tmp_path / "metrics.jsonl").stat().st_ino == inode


def test_a_fresh_start_drops_an_old_run(whole: Path, tmp_path: Path) -> None:
    with MetricWriters(tmp_path, resume_step=0) as writers:
        writers.write(50, "eval", {"eval/old": 1.0})
    with MetricWriters(tmp_path, resume_step=0):
        assert (tmp_path / "metrics.jsonl").read_bytes() == b""
        assert not (tmp_path / "metrics_eval.csv").exists()
    run(tmp_path, first=1)
    assert contents(tmp_path) == contents(whole)


def test_values_read_back_exactly(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "a": 0.1 + 0.2,
        "b": np.float32(0.1),
        "c": 5e-324,
        "d": np.int64(3),
        "e": jnp.ones(()),
    }
    with MetricWriters(tmp_path, resume_step=0) as writers:
        writers.write(7, "train", values)
        writers.write(8, "train", {"a": math.inf, "b": math.nan})
    first, second = read_records(tmp_path / "metrics.jsonl")
    assert first == Record("train", 7, {k: float(v) for k, v in values.items()})
    assert type(first.scalars["d"]) is int
    assert second.scalars["a"] == math.inf
    assert math.isnan(second.scalars["b"])


def test_wrong_calls(tmp_path: Path) -> None:
    with MetricWriters(tmp_path, resume_step=0) as writers:
        with pytest.raises(ValueError, match="'step'"):
            writers.write(1, "train", {"step": 1.0})
        with pytest.raises(ValueError, match="train, eval, timing; not 'test'"):
            writers.write(1, "test", {"loss": 1.0})  # type: ignore[arg-type]
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


def test_a_workdir_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written to .*file/run \(Not a directory\)"):
        MetricWriters(tmp_path / "file" / "run", resume_step=0)
