"""Bytes come from their places; a file that changed since it was indexed is told."""

import pytest

from pnet_jax.data.build.files import _OPEN_FILES, Files
from pnet_jax.data.build.index import Slot
from pnet_jax.errors import UserError


def test_reading(tmp_path):
    files = Files()
    for i in range(_OPEN_FILES + 3):
        (tmp_path / str(i)).write_bytes(b"0123456789")
        assert files.read(Slot("x", 0, str(tmp_path / str(i)), i % 5, 4, ""))[0] == 48 + i % 5
    assert len(files._open) == _OPEN_FILES
    assert files.read(Slot("x", 0, str(tmp_path / "0"), 2, 3, "")) == b"234"
    with pytest.raises(UserError, match="has changed since it was indexed"):
        files.read(Slot("x", 0, str(tmp_path / "0"), 8, 3, ""))
    with pytest.raises(UserError, match="cannot be read"):
        files.read(Slot("x", 0, str(tmp_path / "absent"), 0, 3, ""))
    files.close()
