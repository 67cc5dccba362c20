"""The classes of the ImageNet releases, in their order: that of the wnids.

A class's index never depends on which files happen to be there.
"""

import functools
import gzip
import importlib.resources
import pathlib

from pnet_jax.errors import UserError

# Release -> number of classes. A letter for each stands behind a wnid in `wnids.txt.gz`.
RELEASES = {
    "fall11": 21_841,
    "21kp-fall11": 11_221,
    "21kp-winter21": 10_450,
    "12k": 11_821,
    "1k": 1_000,
}
# Images of the training tars, where the release states them.
NUM_IMAGES = {"fall11": 14_197_122, "1k": 1_281_167}
_LETTERS = dict(zip("fpwtk", RELEASES, strict=True))


@functools.cache
def _table() -> dict[str, tuple[str, ...]]:
    file = importlib.resources.files("pnet_jax.data.build") / "wnids.txt.gz"
    found: dict[str, list[str]] = {release: [] for release in RELEASES}
    for line in gzip.decompress(file.read_bytes()).decode().splitlines():
        wnid, letters = line.split()
        for letter in letters:
            found[_LETTERS[letter]].append(wnid)
    return {release: tuple(wnids) for release, wnids in found.items()}


def class_names(which: str) -> tuple[str, ...]:
    """The classes of a release, or of a text file with one class a line, in order.

    Raises:
      UserError: if there is no such release or file, or the file names a class twice or none.
    """
    if which in RELEASES:
        return _table()[which]
    path = pathlib.Path(which).expanduser()
    if not path.is_file():
        raise UserError(
            f"--classes={which} is neither a release ({', '.join(RELEASES)}) nor a file with one "
            f"class a line."
        )
    names = tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
    if not names:
        raise UserError(f"The class list {path} is empty; write one class a line.")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"The class list {path} names {twice!r} more than once; leave one.")
    return names
