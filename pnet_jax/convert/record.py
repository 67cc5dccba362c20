"""`conversion.json`: where each converted file beside it came from, and how it was checked."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from pnet_jax import __version__
from pnet_jax.convert.files import replace_whole
from pnet_jax.convert.source import Source

FILE = "conversion.json"


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written, and by how many standard deviations its logits differ at most."""

    path: pathlib.Path
    source: Source
    size_bytes: int
    difference: float | None
    layers: int
    int8: dict[str, Any] | None = None  # how it was calibrated, and what that costs in top-1


def write_record(out: pathlib.Path, described: Mapping[str, Any]) -> None:
    """Adds what is said of the file `out` to the record in its directory, with the file's hash."""
    path = out.parent / FILE
    record = read_records(out.parent)
    record[out.name] = {
        "pnet_jax": __version__,
        **described,
        "bytes": out.stat().st_size,
        "sha256": sha256(out),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    replace_whole(path, lambda target: target.write_text(text))


def read_records(directory: pathlib.Path) -> dict[str, Any]:
    """What is said of the files in a directory, by name; empty if nothing (readable) is."""
    try:
        record = json.loads((directory / FILE).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def sha256(path: pathlib.Path) -> str:
    """Of the content of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
