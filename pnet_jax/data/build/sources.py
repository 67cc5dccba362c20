"""What a source is (synset tars, class folders, webdataset shards, a flat folder); its files."""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

from pnet_jax.data.build import archives
from pnet_jax.data.build.archives import COMPRESSED, Region
from pnet_jax.errors import UserError

_PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp")


@dataclasses.dataclass(frozen=True)
class Member:
    """One file to be converted: where its bytes are, and its class, None if that is not known."""

    class_name: str | None
    name: str  # CLASS/FILE
    path: str
    offset: int
    size: int
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class SynsetTar:
    """A tar with the pictures of one class."""

    region: Region
    class_name: str

    def members(self) -> Iterator[Member]:
        """What lies in it, named as if it had been unpacked into a class folder."""
        for e in archives.entries(self.region):
            name = f"{self.class_name}/{e.name.removeprefix(self.class_name + '/')}"
            yield Member(self.class_name, name, self.region.path, e.offset, e.size, e.problem)


@dataclasses.dataclass(frozen=True)
class ClassFolder:
    """A folder, and the folders in it, with the pictures of one class."""

    path: str
    class_name: str

    def members(self) -> Iterator[Member]:
        """All files in sorted order; links are not followed."""
        for directory, folders, files in os.walk(self.path):
            folders.sort()
            for file in sorted(files):
                path = pathlib.Path(directory, file)
                inside = path.relative_to(self.path).as_posix()
                problem = "" if path.is_file() and not path.is_symlink() else "not a plain file"
                size = path.lstat().st_size
                name = f"{self.class_name}/{inside}"
                yield Member(self.class_name, name, str(path), 0, size, problem)


@dataclasses.dataclass(frozen=True)
class FlatFolder:
    """Pictures of all classes in one folder; `labels` tells a file's class."""

    path: str
    labels: Mapping[str, str]

    def members(self) -> Iterator[Member]:
        """All files in sorted order."""
        for path in sorted(pathlib.Path(self.path).iterdir()):
            if path.is_file() and not path.is_symlink():
                class_name = self.labels.get(path.stem)
                name = f"{class_name}/{path.name}"
                problem = "" if class_name else "no label"
                yield Member(class_name, name, str(path), 0, path.stat().st_size, problem)


@dataclasses.dataclass(frozen=True)
class WebShard:
    """A webdataset tar: KEY.jpg beside KEY.cls (an index or a name) or KEY.json ("label")."""

    region: Region
    class_names: Sequence[str]

    def members(self) -> Iterator[Member]:
        """The pictures; labels are read here."""
        pictures: dict[str, archives.Entry] = {}
        labels: dict[str, str] = {}
        with open(self.region.path, "rb") as file:
            for e in archives.entries(self.region):
                key, _, kind = e.name.partition(".")
                if e.problem or f".{kind.lower()}" in _PICTURES:
                    pictures[e.name] = e
                elif kind in ("cls", "json") and e.size < 1 << 20:
                    file.seek(e.offset)
                    text = file.read(e.size).decode(errors="replace")
                    if (label := _label(text, kind)) is not None and (
                        kind == "cls" or key not in labels
                    ):
                        labels[key] = label
        for e in pictures.values():
            label = labels.get(e.name.partition(".")[0])
            class_name = self._class_name(label)
            problem = e.problem or ("" if class_name else "no label")
            name = f"{class_name}/{e.name}"
            yield Member(class_name, name, self.region.path, e.offset, e.size, problem)

    def _class_name(self, label: str | None) -> str | None:
        if label is not None and label.isdecimal():
            index = int(label)
            return self.class_names[index] if index < len(self.class_names) else None
        return label


Unit = SynsetTar | ClassFolder | FlatFolder | WebShard


@dataclasses.dataclass(frozen=True)
class Found:
    """The parts of a source, and the names of classes in it that the class list lacks."""

    units: tuple[Unit, ...]
    unexpected: tuple[str, ...]


def find(
    source: pathlib.Path,
    class_names: Sequence[str],
    *,
    labels: pathlib.Path | None,
    spool: pathlib.Path,
) -> Found:
    """Tells what `source` is.

    Args:
      source: a folder, or one tar (also of tars).
      labels: for a flat folder, the file that tells the classes of its files.
      spool: where compressed archives are decompressed to.

    Raises:
      UserError: if nothing in it can be used.
    """
    if not source.exists():
        raise UserError(f"There is no source {source}; name a folder or a tar.")
    known = set(class_names)
    if labels is not None:
        return Found((FlatFolder(str(source), read_labels(labels, source, known)),), ())
    if source.is_file():
        tars = _tars_in(source, spool)
    else:
        files = sorted(path for path in source.iterdir() if path.is_file())
        tars = [
            t for p in files if p.name.endswith((".tar", *COMPRESSED)) for t in _tars_in(p, spool)
        ]
    if not tars:
        folders = sorted(path for path in source.iterdir() if path.is_dir())
        units: list[Unit] = [ClassFolder(str(p), p.name) for p in folders if p.name in known]
        if not units:
            raise UserError(
                f"{source} holds no tars and no folder of a class in --classes; is it the right "
                f"release? A flat folder of pictures needs --validation-labels."
            )
        return Found(tuple(units), tuple(p.name for p in folders if p.name not in known))
    named = {re.sub(r"(\.tar)?(\.gz|\.plain)?$|\.tgz$", "", tar.name): tar for tar in tars}
    if known.isdisjoint(named):
        return Found(tuple(WebShard(tar, tuple(class_names)) for tar in tars), ())
    if len(named) != len(tars):
        raise UserError(f"Of the {len(tars)} tars in {source} some are of one class; leave one.")
    if source.is_dir() and (both := known & {p.name for p in source.iterdir() if p.is_dir()}):
        raise UserError(f"{source} has tars and class folders, {min(both)} for one; keep either.")
    synsets = tuple(SynsetTar(tar, name) for name, tar in named.items() if name in known)
    return Found(synsets, tuple(sorted(named.keys() - known)))


def _tars_in(path: pathlib.Path, spool: pathlib.Path) -> list[Region]:
    """The tar itself, or the tars in it."""
    if path.name.endswith(COMPRESSED):
        path = archives.unpacked(path, spool)
    whole = Region.of(path)
    inner: list[Region] = []
    for e in archives.entries(whole):
        if not e.name.endswith(".tar") and not e.problem:
            return [whole]
        if not e.problem:
            name = pathlib.PurePosixPath(e.name).name
            inner.append(Region(str(path), e.offset, e.size, name))
    return inner or [whole]


def _label(text: str, kind: str) -> str | None:
    if kind == "cls":
        return text.strip() or None
    try:
        value = json.loads(text)["label"]
    except (ValueError, KeyError, TypeError):
        return None
    return str(value)


def read_labels(path: pathlib.Path, folder: pathlib.Path, known: set[str]) -> dict[str, str]:
    """File stem -> class, from lines `CLASS` in the order of the sorted files, or `FILE ... CLASS`.

    Raises:
      UserError: if the lines are as many as neither, or name no class. The numbers in the ILSVRC
        development kit are not in the order of the wnids, so they are not taken.
    """
    lines = [re.split(r"[\s,]+", t.strip()) for t in path.read_text().splitlines() if t.strip()]
    if not any(set(words) & known for words in lines):
        raise UserError(f"{path} names none of the classes of --classes; wnids are wanted.")
    if all(len(words) == 1 for words in lines):
        stems = sorted(p.stem for p in folder.iterdir() if p.is_file())
        if len(stems) != len(lines):
            raise UserError(f"{path} has {len(lines)} labels, but {folder} {len(stems)} files.")
        return dict(zip(stems, (words[0] for words in lines), strict=True))
    found = {}
    for words in lines:
        if names := [word for word in words[1:] if word in known]:
            found[pathlib.PurePosixPath(words[0]).stem] = names[0]
    return found
