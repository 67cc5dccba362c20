"""All files of the sources in one global order, on disk: memory does not grow with their number.

The order is that of a keyed hash of CLASS/FILE, so it is the same on any machine and however the
files are packed.
"""

import dataclasses
import hashlib
import pathlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence

from pnet_jax.data.build import workers
from pnet_jax.data.build.sources import Member, Unit

ORDER_KEY = b"pnet_jax order 1"
_COLUMNS = "name, class, path, offset, size, problem"


@dataclasses.dataclass(frozen=True)
class Slot:
    """A file in its place; `label` is its class's index, None if it has a problem."""

    name: str
    label: int | None
    path: str
    offset: int
    size: int
    problem: str


def order_key(name: str) -> int:
    """Where a file comes in the order; a signed 64-bit number."""
    digest = hashlib.blake2b(name.encode(errors="replace"), digest_size=8, key=ORDER_KEY).digest()
    return int.from_bytes(digest, "big", signed=True)


def members(unit: Unit, status: workers.Status) -> list[Member]:
    """The work of one process: what a part of a source holds."""
    status.begin(str(unit)[:300])
    return list(unit.members())


def create(
    path: pathlib.Path,
    units: Mapping[str, Sequence[Unit]],
    class_names: Sequence[str],
    *,
    val_per_class: int,
    processes: int,
    on_unit: Callable[[], None],
) -> None:
    """Writes the index: a table for each split, whose row numbers are the order.

    A class gives its first `val_per_class` files in the order to validation, but no more than half.
    The second file of one name is a problem.

    Args:
      path: of the index; exists only when it is complete.
      units: split -> parts of its source.
    """
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    index = {name: i for i, name in enumerate(class_names)}
    connection = sqlite3.connect(temporary)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(f"CREATE TABLE found (split, key INTEGER, {_COLUMNS})")
    for split, parts in units.items():
        for batch in workers.run(members, parts, processes):
            connection.executemany(
                "INSERT INTO found VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (_row(split, member, index) for member in batch),
            )
            on_unit()
    connection.execute(
        """CREATE TABLE ranked AS SELECT *, row_number() OVER (PARTITION BY split, name
        ORDER BY problem != '', path, offset) AS copy FROM found"""
    )
    connection.execute("DROP TABLE found")
    connection.execute(
        "UPDATE ranked SET problem = 'its name came before' WHERE copy > 1 AND problem = ''"
    )
    if val_per_class:
        connection.execute(
            """UPDATE ranked SET split = 'validation' WHERE rowid IN (
            SELECT id FROM (SELECT rowid AS id, row_number() OVER (PARTITION BY class
            ORDER BY key, name) AS place, count(*) OVER (PARTITION BY class) AS total
            FROM ranked WHERE problem = '') WHERE place <= min(?, total / 2))""",
            (val_per_class,),
        )
    for split in ("train", "validation"):
        connection.execute(
            f"CREATE TABLE {split} AS SELECT {_COLUMNS} FROM ranked WHERE split = '{split}' "
            "ORDER BY key, name, copy"
        )
    connection.execute("DROP TABLE ranked")
    connection.commit()
    connection.close()
    temporary.replace(path)


def _row(split: str, member: Member, index: Mapping[str, int]) -> tuple[object, ...]:
    label, problem = index.get(member.class_name or ""), member.problem
    if label is None and not problem:
        problem = "its class is not in the list"
    name = member.name.encode(errors="replace").decode()
    return (
        split,
        order_key(name),
        name,
        label,
        member.path,
        member.offset,
        member.size,
        problem,
    )


class Index:
    """A complete index, read only."""

    def __init__(self, path: pathlib.Path):
        self._connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)

    def __len__(self) -> int:
        return sum(self.count(split) for split in ("train", "validation"))

    def count(self, split: str) -> int:
        """How many files a split has, those with problems too."""
        (count,) = self._connection.execute(f"SELECT count(*) FROM {split}").fetchone()
        return int(count)

    def num_bytes(self) -> int:
        """Of all files without problems."""
        sizes = (
            self._connection.execute(
                f"SELECT coalesce(sum(size), 0) FROM {split} WHERE problem = ''"
            ).fetchone()[0]
            for split in ("train", "validation")
        )
        return int(sum(sizes))

    def classes(self) -> set[int]:
        """The classes that have a file without problem in training."""
        rows = self._connection.execute("SELECT DISTINCT class FROM train WHERE problem = ''")
        return {row[0] for row in rows}

    def slots(self, split: str, start: int, stop: int) -> Iterator[Slot]:
        """Files number `start` to `stop` - 1 of a split."""
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM {split} WHERE rowid > ? AND rowid <= ? ORDER BY rowid",
            (start, stop),
        )
        for row in rows:
            yield Slot(*row)
