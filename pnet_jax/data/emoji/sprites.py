"""The packed drawings: what there is, how to decode one, and which design family is held out.

`sprites.npz` holds every drawing as a WebP picture of 64x64 pixels with transparency, one after the
other, and `classes.json` names the classes; `pnet_jax.data.emoji.pack` writes both.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
import json
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from pnet_jax.data.emoji.sources import SETS

SPRITE_SIZE = 64  # pixels, height and width


@dataclasses.dataclass(frozen=True)
class EmojiClass:
    """One concept. `code` is its code points in hexadecimal ("1f600"), the rest is Unicode's."""

    code: str
    name: str
    group: str
    subgroup: str


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One set's drawing of one class; `index` is its place in the pack."""

    index: int
    class_index: int
    set_name: str
    family: str


@dataclasses.dataclass(frozen=True)
class SpritePack:
    """All classes in Unicode's order and all drawings, ordered by class and then by set."""

    classes: tuple[EmojiClass, ...]
    drawings: tuple[Drawing, ...]
    digest: str
    data: np.ndarray
    offsets: np.ndarray

    def sprite(self, index: int) -> np.ndarray:
        """Decodes a drawing: [64, 64, 4] uint8, BGR and alpha, alpha not multiplied in."""
        encoded = self.data[self.offsets[index] : self.offsets[index + 1]]
        picture = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
        if picture is None:
            raise ValueError(f"drawing {index} of the pack cannot be decoded")
        if picture.shape[2] == 3:  # WebP drops the alpha of a picture without transparency
            picture = cv2.cvtColor(picture, cv2.COLOR_BGR2BGRA)
        return picture


@functools.cache
def load() -> SpritePack:
    """Reads the pack that ships with the package (once a process)."""
    folder = importlib.resources.files(__package__)
    classes = tuple(
        EmojiClass(**entry) for entry in json.loads((folder / "classes.json").read_text())
    )
    raw = (folder / "sprites.npz").read_bytes()
    with importlib.resources.as_file(folder / "sprites.npz") as path, np.load(path) as arrays:
        data, offsets = arrays["data"], arrays["offsets"]
        drawings = tuple(
            Drawing(i, int(c), SETS[s].name, SETS[s].family)
            for i, (c, s) in enumerate(zip(arrays["class_index"], arrays["set_index"], strict=True))
        )
    return SpritePack(classes, drawings, hashlib.sha256(raw).hexdigest(), data, offsets)


def split_by_family(pack: SpritePack) -> dict[str, tuple[tuple[Drawing, ...], ...]]:
    """Holds out one design family of every class, whole, for validation.

    The choice depends on the class's code points alone, so it is the same on every machine and for
    every seed. Training keeps at least two drawings, from two families wherever there are three.

    Returns:
      For "train" and for "validation": the drawings of each class, by its index.
    """
    by_class: list[list[Drawing]] = [[] for _ in pack.classes]
    for drawing in pack.drawings:
        by_class[drawing.class_index].append(drawing)
    train, validation = [], []
    for emoji, drawings in zip(pack.classes, by_class, strict=True):
        held_out = _held_out_family(emoji.code, drawings)
        train.append(tuple(d for d in drawings if d.family != held_out))
        validation.append(tuple(d for d in drawings if d.family == held_out))
    return {"train": tuple(train), "validation": tuple(validation)}


def _held_out_family(code: str, drawings: Sequence[Drawing]) -> str:
    families = sorted({d.family for d in drawings})
    kept: Mapping[str, list[str]] = {
        family: [d.family for d in drawings if d.family != family] for family in families
    }
    eligible = [f for f in families if len(kept[f]) >= 2]
    diverse = [f for f in eligible if len(set(kept[f])) >= 2]
    return min(
        diverse or eligible,
        key=lambda f: hashlib.blake2b(f"{code}/{f}".encode(), digest_size=8).digest(),
    )
