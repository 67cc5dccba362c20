"""Metric records as TensorBoard events, written without TensorFlow."""

import sys
import time
import types
from pathlib import Path

from pnet_jax.report.jsonl import Record


class TensorBoardWriter:
    """Writes each record's scalars to an events file, on disk before `write` returns.

    Names with a slash are tags as they are; others get the kind in front ("train/epoch").
    On opening, a session start is logged at the step after `resume_step`: TensorBoard then forgets
    what a killed run logged from that step on. Events hold float32 values.
    """

    def __init__(self, directory: Path, *, resume_step: int) -> None:
        # TensorBoard imports TensorFlow wherever it is installed, unless its own build switch, the
        # presence of this module, says not to: seconds of start-up and a grab at the accelerator.
        switch = "tensorboard.compat.notf"
        sys.modules.setdefault(switch, types.ModuleType(switch))
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event_type = event_pb2.Event
        self._summary_type = summary_pb2.Summary
        self._writer = EventFileWriter(str(directory))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(event_pb2.Event(step=resume_step + 1, session_log=start))

    def write(self, record: Record) -> None:
        """Adds one event with all scalars of the record."""
        values = [
            self._summary_type.Value(
                tag=name if "/" in name else f"{record.kind}/{name}", simple_value=value
            )
            for name, value in record.scalars.items()
        ]
        self._add(self._event_type(step=record.step, summary=self._summary_type(value=values)))

    def close(self) -> None:
        """Ends the writing thread and closes the file."""
        self._writer.close()

    def _add(self, event) -> None:  # type: ignore[no-untyped-def]  # generated protobuf class
        event.wall_time = time.time()
        self._writer.add_event(event)
        self._writer.flush()
