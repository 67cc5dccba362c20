"""What became of every file, and whether a set on disk still is what was written."""

import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

from pnet_jax.data import writer
from pnet_jax.errors import UserError

FILE = "manifest.json"


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """One shard: accepted + re-encoded + rejected files are those that were seen.

    `reencoded` lists files whose bytes were not kept for another reason than their size.
    """

    file: str
    seen: int
    accepted: int
    resized: int
    num_bytes: int
    sha256: str
    reencoded: list[dict[str, str]]
    rejected: list[dict[str, str]]

    @property
    def num_examples(self) -> int:
        return self.seen - len(self.rejected)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes under a temporary name, synced to disk and renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def sha256(path: pathlib.Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def split_entry(reports: list[ShardReport]) -> dict[str, Any]:
    """The part of the manifest that tells of one split.

    Raises:
      RuntimeError: if accepted + re-encoded + rejected is not seen.
    """
    rejected = [item for report in reports for item in report.rejected]
    reencoded = [item for report in reports for item in report.reencoded]
    seen = sum(report.seen for report in reports)
    accepted = sum(report.accepted for report in reports)
    resized = sum(report.resized for report in reports)
    if accepted + resized + len(reencoded) + len(rejected) != seen:
        raise RuntimeError(f"{seen} files were seen, but not as many are accounted for.")
    return {
        "seen": seen,
        "accepted": accepted,
        "reencoded": resized + len(reencoded),
        "rejected": len(rejected),
        "shards": [
            {
                "file": report.file,
                "num_examples": report.num_examples,
                "num_bytes": report.num_bytes,
                "sha256": report.sha256,
            }
            for report in reports
        ],
        "reencoded_files": reencoded,
        "rejected_files": rejected,
    }


def verify(directory: pathlib.Path) -> int:
    """Reads every shard of a finished set again and returns the number of its examples.

    Raises:
      UserError: if the set is unfinished, or a shard is not what the manifest says.
    """
    path = directory / FILE
    if not writer.is_complete(directory) or not path.is_file():
        raise UserError(f"{directory} holds no finished set with a {FILE}; build it to the end.")
    total = 0
    for split, entry in json.loads(path.read_text())["splits"].items():
        found = 0
        for shard in entry["shards"]:
            file = directory / shard["file"]
            if not file.is_file():
                raise UserError(f"{file} is missing; delete {directory} and build it again.")
            if file.stat().st_size != shard["num_bytes"] or sha256(file) != shard["sha256"]:
                raise UserError(
                    f"{file} is not what was written (another SHA-256); copy it again, or delete "
                    f"{directory} and build it again."
                )
            info = writer.read_shard_info(file)
            found += info.num_examples if info else 0
        if found != entry["accepted"] + entry["reencoded"]:
            raise UserError(f"Split {split!r} of {directory} has {found} examples, not as written.")
        total += found
    return total
