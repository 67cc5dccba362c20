"""Small tables of results, as aligned plain text and as JSON."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pnet_jax.report import atomic

_NUMBER = re.compile(r"[-+]?[\d,.]+( ?[%x×kMGKs]?[bB]?)|[-–]?")


def format_table(rows: Sequence[Mapping[str, str]]) -> str:
    """The rows under a header of their keys, columns in order of first appearance.

    A column of numbers (units and empty cells allowed) is aligned to the right, any other to the
    left. Cells a row does not have are blank. No rows give an empty string.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, *([row.get(name, "") for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    numeric = [all(_NUMBER.fullmatch(line[i]) for line in lines[1:]) for i in range(len(columns))]

    def join(cells: Sequence[str]) -> str:
        aligned = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        )
        return "  ".join(aligned).rstrip()

    if not columns:
        return ""
    rule = join(["-" * width for width in widths])
    return "\n".join([join(lines[0]), rule, *(join(line) for line in lines[1:])])


def write_table(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Writes the rows as a JSON list of objects, atomically."""
    text = json.dumps([dict(row) for row in rows], indent=2, ensure_ascii=False) + "\n"
    atomic.replace_file(path, text.encode())
