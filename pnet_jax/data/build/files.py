"""Reading files, and parts of tars, by their place."""

import os

from pnet_jax.data.build.index import Slot
from pnet_jax.errors import UserError

_OPEN_FILES = 64


class Files:
    """The tars that a worker reads from, the last few kept open."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def read(self, slot: Slot) -> bytes:
        """Raises UserError if the file cannot be read or is shorter than it was."""
        try:
            file = self._open.pop(slot.path, None)
            if file is None:
                if len(self._open) >= _OPEN_FILES:
                    os.close(self._open.pop(next(iter(self._open))))
                file = os.open(slot.path, os.O_RDONLY)
            self._open[slot.path] = file
            content = os.pread(file, slot.size, slot.offset)
        except OSError as error:
            raise UserError(
                f"{slot.path} cannot be read ({error.strerror}); start again."
            ) from error
        if len(content) != slot.size:
            raise UserError(f"{slot.path} has changed since it was indexed; start another --name.")
        return content

    def close(self) -> None:
        """Closes what is open."""
        for file in self._open.values():
            os.close(file)
