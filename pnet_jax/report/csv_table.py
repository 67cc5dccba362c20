"""Metric records of one kind as a CSV file, for spreadsheets and pandas."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from pnet_jax.report import atomic
from pnet_jax.report.jsonl import Record


class CsvWriter:
    """Keeps a CSV file with a row for each record, flushed when written, and a column a scalar.

    The file is written from `kept` on opening (what a killed process left in it does not matter).
    The header is `step` and the names of the scalars in the order they first appear. A record with
    a new name rewrites the file, atomically, under the longer header; a missing value is an empty
    cell.
    """

    def __init__(self, path: Path, *, kept: Iterable[Record]) -> None:
        self._path = path
        self._records = list(kept)
        self._columns = list(dict.fromkeys(name for r in self._records for name in r.scalars))
        if self._records:
            self._rewrite()
        else:
            path.unlink(missing_ok=True)  # the header is known with the first record only

    def write(self, record: Record) -> None:
        """Adds one row."""
        self._records.append(record)
        new_columns = [name for name in record.scalars if name not in self._columns]
        if new_columns or len(self._records) == 1:
            self._columns += new_columns
            self._rewrite()
            return
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(self._format([record]))

    def close(self) -> None:
        """Nothing is open between two writes."""

    def _rewrite(self) -> None:
        header = _format_rows([["step", *self._columns]])
        atomic.replace_file(self._path, (header + self._format(self._records)).encode())

    def _format(self, records: Iterable[Record]) -> str:
        return _format_rows(
            [r.step, *(r.scalars.get(name, "") for name in self._columns)] for r in records
        )


def _format_rows(rows: Iterable[list[str] | list[int | float | str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
