"""TensorBoard events, read back by TensorBoard itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from pnet_jax.report.jsonl import Kind, Record
from pnet_jax.report.tensorboard_events import TensorBoardWriter


def read_scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by tag, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def write(directory: Path, *, resume_step: int, last: int, scale: float) -> None:
    writer = TensorBoardWriter(directory, resume_step=resume_step)
    for step in range(resume_step + 1, last + 1):
        writer.write(Record("train", step, {"train/loss": scale * step, "epoch": step / 4}))
    writer.close()


def test_events_read_back(tmp_path: Path) -> None:
    writer = TensorBoardWriter(tmp_path, resume_step=0)
    kinds: list[tuple[Kind, str]] = [
        ("train", "train/loss"),
        ("train", "epoch"),
        ("eval", "eval/top1"),
        ("timing", "step_secs"),
    ]
    for step in (1, 2):
        for kind, name in kinds:
            writer.write(Record(kind, step, {name: 0.25 * step}))
    # Not closed: a record must be on disk when `write` returns.
    assert read_scalars(tmp_path) == {
        tag: [(1, 0.25), (2, 0.5)]
        for tag in ("train/loss", "train/epoch", "eval/top1", "timing/step_secs")
    }
    writer.close()


def test_resume_purges_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, resume_step=0, last=6, scale=1.0)
    (events_file,) = tmp_path.iterdir()
    events_file.write_bytes(events_file.read_bytes()[:-5])  # killed in the middle of a write
    write(tmp_path, resume_step=3, last=5, scale=10.0)
    assert read_scalars(tmp_path)["train/loss"] == [
        (1, 1.0),
        (2, 2.0),
        (3, 3.0),
        (4, 40.0),
        (5, 50.0),
    ]


def test_session_starts_after_the_resumed_step(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.compat.proto.event_pb2 import SessionLog

    write(tmp_path, resume_step=41, last=41, scale=1.0)
    (events_file,) = tmp_path.iterdir()
    events = list(EventFileLoader(str(events_file)).Load())
    assert [event.WhichOneof("what") for event in events] == ["file_version", "session_log"]
    assert events[1].step == 42
    assert events[1].session_log.status == SessionLog.START


@pytest.mark.parametrize("tensorflow", ["blocked", "installed"])
def test_tensorflow_is_not_imported(tmp_path: Path, tensorflow: str) -> None:
    """Neither needed, nor imported where TensorBoard could find it."""
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('tensorflow was imported')")
    program = (
        "import pathlib, sys\n"
        + ("sys.modules['tensorflow'] = None\n" if tensorflow == "blocked" else "")
        + "sys.path.insert(0, sys.argv[1])\n"
        "from pnet_jax.report.writers import MetricWriters\n"
        "assert 'tensorboard' not in sys.modules and 'matplotlib' not in sys.modules\n"
        "with MetricWriters(pathlib.Path(sys.argv[1]), resume_step=0) as writers:\n"
        "    writers.write(1, 'train', {'train/loss': 2.5})\n"
        "assert sys.modules.get('tensorflow') is None\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(tmp_path)], check=True)
    assert read_scalars(tmp_path / "tensorboard") == {"train/loss": [(1, 2.5)]}
