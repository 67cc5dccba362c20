"""Replace a file in one step, so that a killed process leaves the old content or the new one."""

import os
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Makes `content` the whole content of `path`, atomically; the directory must exist."""
    # A fixed name: what a killed process left half written is overwritten by the next one.
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # the content must be on disk before the name points at it
    partial.replace(path)
