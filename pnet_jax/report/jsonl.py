"""Metric records as JSON lines: the file the CSV files, the summary and the curves are made from.

One line is one record, `{"kind": "train", "step": 40, "epoch": 1.0, "train/loss": 6.93}`. Floats
are written with `repr`, so they read back bit for bit; a value that is not finite is written `NaN`
or `Infinity`, which Python's `json` and pandas read.
"""

import json
import logging
import numbers
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

from pnet_jax.report import atomic

Kind = Literal["train", "eval", "timing"]

_KINDS: tuple[str, ...] = get_args(Kind)
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """The scalars measured at one step."""

    kind: Kind
    step: int
    scalars: dict[str, int | float]

    @classmethod
    def create(cls, kind: Kind, step: int, scalars: Mapping[str, float]) -> Self:
        """Checks the names and turns NumPy and JAX scalars into Python's own.

        Raises ValueError for an unknown kind or a scalar called "kind" or "step".
        """
        if kind not in _KINDS:
            raise ValueError(f"a record is of kind {', '.join(_KINDS)}; not {kind!r}")
        if reserved := {"kind", "step"} & scalars.keys():
            raise ValueError(f"a scalar cannot be called {sorted(reserved)[0]!r}")
        return cls(kind, int(step), {name: _plain(value) for name, value in scalars.items()})

    @classmethod
    def from_line(cls, line: str | bytes) -> Self:
        """Reads one line; raises ValueError if it is torn or no record."""
        fields = json.loads(line)
        if not isinstance(fields, dict):
            raise ValueError(f"not a record: {line!r}")
        kind, step = fields.pop("kind", None), fields.pop("step", None)
        if kind not in _KINDS or type(step) is not int:
            raise ValueError(f"not a record: {line!r}")
        if not all(type(value) in (int, float) for value in fields.values()):
            raise ValueError(f"a record holds numbers only: {line!r}")
        return cls(kind, step, fields)

    def to_line(self) -> str:
        """The record as one line, with its newline."""
        return json.dumps({"kind": self.kind, "step": self.step} | self.scalars) + "\n"


def _plain(value: float) -> int | float:
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value)


def read_records(path: Path) -> list[Record]:
    """All readable records of a file, in their order; lines torn by a kill are left out.

    Raises FileNotFoundError if there is no such file.
    """
    return [record for _, record in _readable_lines(path.read_bytes())]


def _readable_lines(content: bytes) -> list[tuple[bytes, Record]]:
    lines = []
    for line in content.split(b"\n"):
        try:
            lines.append((line, Record.from_line(line)))
        except ValueError:  # includes JSONDecodeError and UnicodeDecodeError
            continue
    return lines


class JsonlWriter:
    """Appends records to a JSON lines file, each on disk before `write` returns.

    On opening, the file is brought back to the state it had at the checkpoint of `resume_step`:
    records of later steps (a killed run logs past its last checkpoint) and torn lines are dropped
    in one atomic replacement. What remains is in `kept`.
    """

    kept: list[Record]

    def __init__(self, path: Path, *, resume_step: int) -> None:
        old = path.read_bytes() if path.exists() else b""
        readable = _readable_lines(old)
        lines = [(line, record) for line, record in readable if record.step <= resume_step]
        # Kept lines are copied, not written anew: resuming must not change a byte of them.
        new = b"".join(line + b"\n" for line, _ in lines)
        if new != old:
            dropped = len(readable) - len(lines)
            _logger.info("%s: dropped %d records after step %d", path, dropped, resume_step)
            atomic.replace_file(path, new)
        self.kept = [record for _, record in lines]
        self._file = path.open("a", encoding="utf-8", newline="\n")

    def write(self, record: Record) -> None:
        """Appends one record."""
        self._file.write(record.to_line())
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self.close()
