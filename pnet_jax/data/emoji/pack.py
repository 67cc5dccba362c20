"""Packs the demo set's drawings from the pinned npm packages.

    python -m pnet_jax.data.emoji.pack --downloads DIR

writes `sprites.npz`, `classes.json` and `ATTRIBUTION.md` beside this file. Only a maintainer who
changes the pinned versions runs it: the packed files are part of the repository. It needs npm and
the Python packages resvg_py 0.5.0 and pillow; with the same versions of these the files come out
byte for byte the same.

A class is an emoji of Unicode without its skin tones. It is kept if at least five of the eight
sets draw it. A picture that one set uses for several classes is left out of all of them.
"""

import argparse
import base64
import collections
import hashlib
import io
import json
import pathlib
import re
import subprocess
import tarfile
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import resvg_py
import tqdm
from PIL import Image

from pnet_jax.data.emoji.attribution import attribution
from pnet_jax.data.emoji.sources import NAMES, SETS, EmojiSet, Package
from pnet_jax.data.emoji.sprites import SPRITE_SIZE

MIN_DRAWINGS = 5
COMPONENTS_GROUP = 2  # skin tones and hair styles, no emoji of their own

# Found by looking at every pair: names that mean something else in a set without code points
# (its "kiss" is a face, its "window" a computer's), and two drawings that come out blank.
MISFILED = {
    "fxemoji": {"1f48f", "1f408", "1f576", "1f6a7", "1f68b", "2328", "1fa9f", "1f32b"},
}


class DrawingSource(Protocol):
    """Where the drawings of one set come from."""

    def find(self, emoji: "Emoji") -> str | None:
        """The key of this emoji's drawing, or None."""

    def draw(self, key: str) -> Image.Image:
        """The drawing as an RGBA picture of SPRITE_SIZE."""


class Emoji:
    """An emoji of Unicode and the names that the sets may file it under, the likeliest first."""

    def __init__(self, entry: Mapping[str, Any], known_names: Iterable[str], unicode_name: str):
        self.code = code_key(entry["hexcode"])
        self.name: str = entry["label"]
        names = [slug(self.name), *sorted(known_names), slug(unicode_name)]
        self.names = tuple(dict.fromkeys(name for name in names if name))


class IconifyPackage:
    """A set that is one JSON file of SVG bodies by name, with or without a table of code points."""

    def __init__(self, files: Mapping[str, bytes], *, dashes: bool):
        self._icons = json.loads(files["icons.json"])
        self._aliases = self._icons.get("aliases", {})
        self.names_by_code: dict[str, str] = {
            code_key(code): name for code, name in json.loads(files["chars.json"]).items()
        }
        self._dashes = dashes

    def find(self, emoji: Emoji) -> str | None:
        if self.names_by_code:
            candidates = [self.names_by_code.get(emoji.code, "")]
        else:
            candidates = [n if self._dashes else n.replace("-", "") for n in emoji.names]
        known = (n for n in candidates if n in self._icons["icons"] or n in self._aliases)
        return next(known, None)

    def draw(self, key: str) -> Image.Image:
        mirrored = False
        while key not in self._icons["icons"]:
            alias = self._aliases[key]
            if not alias.keys() <= {"parent", "hFlip"}:
                raise ValueError(f"alias {key!r} asks for more than a mirror image: {alias}")
            mirrored ^= alias.get("hFlip", False)
            key = alias["parent"]
        icon = self._icons["icons"][key]
        box = [
            icon.get(name, self._icons.get(name, default))
            for name, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
        ]
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
            f' viewBox="{" ".join(map(str, box))}" width="{SPRITE_SIZE}" height="{SPRITE_SIZE}">'
            f"{icon['body']}</svg>"
        )
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg))
        picture = Image.open(io.BytesIO(png)).convert("RGBA")
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else picture


class PicturePackage:
    """A set that is one picture file for each emoji, named by its code points."""

    def __init__(self, files: Mapping[str, bytes]):
        self._pictures = {
            code_key(pathlib.PurePosixPath(name).stem): data
            for name, data in files.items()
            if name.endswith(".webp")
        }

    def find(self, emoji: Emoji) -> str | None:
        return emoji.code if emoji.code in self._pictures else None

    def draw(self, key: str) -> Image.Image:
        picture = Image.open(io.BytesIO(self._pictures[key])).convert("RGBA")
        return picture.resize((SPRITE_SIZE, SPRITE_SIZE), Image.Resampling.LANCZOS)


def code_key(code: str) -> str:
    """Code points in one spelling: lower case, no leading zeros, no variation selector."""
    points = (point.lstrip("0") for point in code.lower().split("-"))
    return "-".join(point for point in points if point != "fe0f")


def slug(name: str) -> str:
    """A name as the sets spell it: "Mrs. Claus" -> "mrs-claus"."""
    plain = unicodedata.normalize("NFKD", name.replace("’", "")).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def fetch(package: Package, downloads: pathlib.Path) -> dict[str, bytes]:
    """The files of a package by their path in it, downloaded by npm unless already there.

    Raises:
      ValueError: the tarball is not the pinned one.
    """
    stem = package.name.lstrip("@").replace("/", "-")
    tarball = downloads / f"{stem}-{package.version}.tgz"
    if not tarball.exists():
        subprocess.run(
            ["npm", "pack", "--silent", f"{package.name}@{package.version}"],
            cwd=downloads,
            check=True,
        )
    data = tarball.read_bytes()
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != package.sha512:
        raise ValueError(f"{tarball} is not the pinned {package.name} {package.version}")
    files = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            if (content := tar.extractfile(member)) is not None:
                files[member.name.partition("/")[2]] = content.read()
    return files


def open_source(emoji_set: EmojiSet, downloads: pathlib.Path) -> IconifyPackage | PicturePackage:
    """The source of one set's drawings."""
    files = fetch(emoji_set.package, downloads)
    if "icons.json" in files:
        return IconifyPackage(files, dashes=emoji_set.name != "fxemoji")
    return PicturePackage(files)


def encode(picture: Image.Image) -> bytes:
    """WebP: without loss where that is no larger (most flat drawings), else at quality 75."""
    options: tuple[dict[str, Any], ...] = (
        {"lossless": True, "quality": 80},
        {"quality": 75, "alpha_quality": 50},
    )
    results = []
    for option in options:
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", method=6, **option)
        results.append(buffer.getvalue())
    return min(results, key=len)


def draw_all(
    emoji: Iterable[Emoji], sources: Mapping[str, DrawingSource]
) -> dict[str, dict[str, Image.Image]]:
    """The drawings of every kept class: code -> set name -> picture."""
    keys = {
        e.code: {
            name: key
            for name, source in sources.items()
            if e.code not in MISFILED.get(name, ()) and (key := source.find(e))
        }
        for e in emoji
    }
    drawings: dict[str, dict[str, Image.Image]] = {}
    uses: collections.Counter[tuple[str, bytes]] = collections.Counter()
    for code, found in tqdm.tqdm(keys.items(), desc="drawing", unit="class"):
        if len(found) >= MIN_DRAWINGS:
            drawings[code] = {name: sources[name].draw(key) for name, key in found.items()}
            uses.update((name, picture.tobytes()) for name, picture in drawings[code].items())
    for code, pictures in list(drawings.items()):
        alone = {n: p for n, p in pictures.items() if uses[n, p.tobytes()] == 1}
        if len(alone) >= MIN_DRAWINGS:
            drawings[code] = alone
        else:
            del drawings[code]
    return drawings


def main() -> None:
    """Fetches, draws, packs."""
    parser = argparse.ArgumentParser(description="Pack the demo set's drawings.")
    parser.add_argument("--downloads", type=pathlib.Path, required=True, help="kept npm tarballs")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    args = parser.parse_args()
    args.downloads.mkdir(parents=True, exist_ok=True)

    sources = {s.name: open_source(s, args.downloads) for s in SETS}
    known_names = collections.defaultdict(set)
    for source in sources.values():
        if isinstance(source, IconifyPackage):
            for code, name in source.names_by_code.items():
                known_names[code].add(name)
    names = fetch(NAMES, args.downloads)
    unicode_names = json.loads(names["meta/unicode-names.json"])
    groups = json.loads(names["meta/groups.json"])
    entries = [
        e
        for e in sorted(json.loads(names["en/data.json"]), key=lambda e: e.get("order", -1))
        if e.get("group", COMPONENTS_GROUP) != COMPONENTS_GROUP
    ]
    emoji = {
        code_key(e["hexcode"]): Emoji(
            e, known_names[code_key(e["hexcode"])], unicode_names.get(e["hexcode"], "")
        )
        for e in entries
    }
    drawings = draw_all(emoji.values(), sources)

    classes = [
        {
            "code": code_key(e["hexcode"]),
            "name": e["label"],
            "group": groups["groups"][str(e["group"])],
            "subgroup": groups["subgroups"][str(e["subgroup"])],
        }
        for e in entries
        if code_key(e["hexcode"]) in drawings
    ]
    set_names = [s.name for s in SETS]
    sprites, class_index, set_index = [], [], []
    for index, entry in enumerate(classes):
        for name in set_names:
            if name in drawings[entry["code"]]:
                sprites.append(encode(drawings[entry["code"]][name]))
                class_index.append(index)
                set_index.append(set_names.index(name))
    np.savez(
        args.out / "sprites.npz",
        data=np.frombuffer(b"".join(sprites), np.uint8),
        offsets=np.cumsum([0, *map(len, sprites)], dtype=np.int64),
        class_index=np.array(class_index, np.uint16),
        set_index=np.array(set_index, np.uint8),
    )
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in classes)
    (args.out / "classes.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    counts = collections.Counter(set_names[i] for i in set_index)
    (args.out / "ATTRIBUTION.md").write_text(attribution(counts), encoding="utf-8")
    print(f"{len(classes)} classes, {len(sprites)} drawings, {sum(map(len, sprites)):,} bytes")


if __name__ == "__main__":
    main()
