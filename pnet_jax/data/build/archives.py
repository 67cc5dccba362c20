"""What lies where in a tar, without unpacking it; entries that a tar of pictures must not have.

Nothing is ever extracted under the name that an archive gives it.
"""

import dataclasses
import gzip
import io
import os
import pathlib
import shutil
import sys
import tarfile
from collections.abc import Iterator

from pnet_jax.errors import UserError

COMPRESSED = (".tar.gz", ".tgz")
# Pictures do not compress, but the padding of a tar of tiny ones does.
_MAX_EXPANSION = 200


@dataclasses.dataclass(frozen=True)
class Region:
    """A tar: `size` bytes from `offset` on in the file at `path`."""

    path: str
    offset: int
    size: int
    name: str  # its own file name, for messages and as the synset's name

    @classmethod
    def of(cls, path: pathlib.Path) -> "Region":
        """A whole file."""
        return cls(str(path), 0, path.stat().st_size, path.name)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file in a tar; with a `problem`, it must not be read."""

    name: str
    offset: int
    size: int
    problem: str = ""


class _Slice(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, region: Region):
        self._file = open(region.path, "rb")  # noqa: SIM115
        self._region, self._at = region, 0

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        length = max(0, min(len(buffer), self._region.size - self._at))
        self._file.seek(self._region.offset + self._at)
        count = self._file.readinto(buffer[:length])
        self._at += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._region.size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


def entries(region: Region) -> Iterator[Entry]:
    """The files of an uncompressed tar in their order; offsets are those in the file itself.

    Links, devices and paths that leave the archive come with a problem; so does the place where a
    damaged archive cannot be read on.
    """
    with io.BufferedReader(_Slice(region), 1 << 12) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # else they pile up
                    if not member.isdir():
                        yield _entry(member, region)
                # tarfile ends at a header that makes no sense as if it were the end.
                file.seek(tar.offset)
                mark = file.read(tarfile.BLOCKSIZE)
                if len(mark) < tarfile.BLOCKSIZE or any(mark):
                    raise tarfile.ReadError("it stops without an end mark")
        except (tarfile.TarError, OSError, EOFError, ValueError, RecursionError) as error:
            yield Entry(f"{region.name} (from here on)", 0, 0, f"damaged archive: {error}")


def _entry(member: tarfile.TarInfo, region: Region) -> Entry:
    name = member.name.encode(errors="surrogateescape").decode(errors="replace")
    name = name.removeprefix("./")
    if member.issym() or member.islnk():
        problem = "a link"
    elif not member.isreg() or member.issparse():
        problem = "not a plain file"
    elif name.startswith("/") or ".." in pathlib.PurePosixPath(name).parts:
        problem = "its path leaves the archive"
    elif member.offset_data + member.size > region.size:
        problem = "cut short by the end of the archive"
    else:
        problem = ""
    return Entry(name, region.offset + member.offset_data, member.size, problem)


def unpacked(path: pathlib.Path, directory: pathlib.Path) -> pathlib.Path:
    """The tar inside a `.tar.gz`, decompressed into `directory` unless it is there.

    Raises:
      UserError: if it is damaged, expands suspiciously, or the disk is full.
    """
    done = directory / (path.name.removesuffix(".gz").removesuffix(".tgz") + ".plain")
    if done.exists():
        return done
    print(
        f"warning: {path} is compressed, which allows no random access: it is decompressed to "
        f"{directory} first, at about 200 MB/s; plain tars need neither the time nor the space",
        file=sys.stderr,
    )
    directory.mkdir(parents=True, exist_ok=True)
    temporary = done.with_suffix(".tmp")
    limit = path.stat().st_size * _MAX_EXPANSION + (64 << 20)
    try:
        with gzip.open(path) as source, temporary.open("wb") as target:
            while chunk := source.read(1 << 20):
                if target.tell() + len(chunk) > limit:
                    raise UserError(
                        f"{path} expands to more than {_MAX_EXPANSION} times its size, which "
                        f"pictures do not; check where it comes from."
                    )
                if shutil.disk_usage(directory).free < 2 * len(chunk):
                    raise UserError(f"{directory} is full; make room and start again.")
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
    except (EOFError, OSError) as error:
        raise UserError(f"{path} cannot be decompressed ({error}); get it again.") from error
    temporary.replace(done)
    return done
