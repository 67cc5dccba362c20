"""Where a run's numbers go: one call writes a record to every backend.

metrics.jsonl        "train" and "eval" records: equal, byte for byte, however often the run was
                     killed and resumed
metrics_train.csv    the same records as tables
metrics_eval.csv
timing.jsonl         "timing" records: speed and time of day, which no two runs share
tensorboard/         all of them
"""

import contextlib
import time
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, Self

from pnet_jax.errors import UserError
from pnet_jax.report.csv_table import CsvWriter
from pnet_jax.report.jsonl import JsonlWriter, Kind, Record
from pnet_jax.report.tensorboard_events import TensorBoardWriter

METRICS_FILE = "metrics.jsonl"
TIMING_FILE = "timing.jsonl"


class MetricWriter(Protocol):
    """What a backend does. A new backend is a class like this and a line in `MetricWriters`."""

    def write(self, record: Record) -> None:
        """Puts the record where it survives a SIGKILL."""

    def close(self) -> None:
        """Releases files and threads."""


class MetricWriters:
    """Opens all backends in `workdir` (made if absent) at the state they had at `resume_step`.

    `resume_step` is the step of the restored checkpoint, 0 for a run from the start: records of
    later steps are dropped, as the run is about to make them again. A record it makes again
    although the file kept it (an evaluation repeated at the resumed step) is not written twice. One
    process of a run opens the writers, not all.

    Raises UserError if `workdir` cannot be written.

    Example:
        with MetricWriters(workdir, resume_step=state.step) as writers:
            writers.write(40, "train", {"epoch": 1.0, "train/loss": 6.93})
            writers.write(40, "timing", {"images_per_sec": 512.0, "step_secs": 0.25})
    """

    def __init__(self, workdir: Path, *, resume_step: int) -> None:
        with contextlib.ExitStack() as stack:
            try:
                workdir.mkdir(parents=True, exist_ok=True)
                metrics = JsonlWriter(workdir / METRICS_FILE, resume_step=resume_step)
                stack.callback(metrics.close)
                timing = JsonlWriter(workdir / TIMING_FILE, resume_step=resume_step)
                stack.callback(timing.close)
                train_csv, eval_csv = (
                    CsvWriter(
                        workdir / f"metrics_{kind}.csv",
                        kept=[record for record in metrics.kept if record.kind == kind],
                    )
                    for kind in ("train", "eval")
                )
                events = TensorBoardWriter(workdir / "tensorboard", resume_step=resume_step)
                stack.callback(events.close)
            except OSError as error:
                raise UserError(
                    f"The metrics cannot be written to {workdir} ({error.strerror}): make it "
                    "writable or choose another --workdir."
                ) from error
            self._closing = stack.pop_all()
        self._backends: dict[str, tuple[MetricWriter, ...]] = {
            "train": (metrics, train_csv, events),
            "eval": (metrics, eval_csv, events),
            "timing": (timing, events),
        }
        self._kept = {(record.kind, record.step) for record in metrics.kept + timing.kept}

    def write(self, step: int, kind: Kind, scalars: Mapping[str, float]) -> None:
        """Writes one record; "timing" records also get the time of day, in Unix seconds.

        Raises ValueError for an unknown kind or a scalar called "kind" or "step".
        """
        if kind == "timing":
            scalars = {**scalars, "unix_time_secs": time.time()}
        record = Record.create(kind, step, scalars)
        if (record.kind, record.step) in self._kept:
            return
        for backend in self._backends[kind]:
            backend.write(record)

    def close(self) -> None:
        """Closes all backends."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self.close()
