"""The pack that ships: its size, its counts, and that no design is on both sides of the split."""

import collections
import importlib.resources

import cv2
import numpy as np

from pnet_jax.data.emoji import sprites
from pnet_jax.data.emoji.attribution import attribution
from pnet_jax.data.emoji.sources import FAMILIES, SETS

PACK = sprites.load()
SPLIT = sprites.split_by_family(PACK)
FOLDER = importlib.resources.files("pnet_jax.data.emoji")


def test_counts():
    assert len(PACK.classes) == 1577
    assert len(PACK.drawings) == 10_654
    assert len({c.name for c in PACK.classes}) == len({c.code for c in PACK.classes}) == 1577
    assert len({c.subgroup for c in PACK.classes}) == 96
    assert len({c.group for c in PACK.classes}) == 9
    per_class = collections.Counter(d.class_index for d in PACK.drawings)
    assert len(per_class) == 1577
    assert (min(per_class.values()), max(per_class.values())) == (5, 8)
    assert len({(d.class_index, d.set_name) for d in PACK.drawings}) == len(PACK.drawings)


def test_the_pack_is_small():
    size = sum(len((FOLDER / name).read_bytes()) for name in ("sprites.npz", "classes.json"))
    assert size < 10_000_000


def test_every_drawing_decodes_and_shows_something():
    seen = set()
    for drawing in PACK.drawings:
        sprite = PACK.sprite(drawing.index)
        assert sprite.shape == (64, 64, 4)
        assert sprite.dtype == np.uint8
        assert sprite[..., 3].max() > 200, drawing
        seen.add((drawing.set_name, sprite.tobytes()))
    assert len(seen) == len(PACK.drawings)  # no set shows one picture for two classes


def test_a_family_is_on_one_side_of_every_class():
    family_of_set = {s.name: s.family for s in SETS}
    assert len(SPLIT["train"]) == len(SPLIT["validation"]) == len(PACK.classes)
    for index, (train, validation) in enumerate(
        zip(SPLIT["train"], SPLIT["validation"], strict=True)
    ):
        drawings = [*train, *validation]
        assert sorted(d.index for d in drawings) == [
            d.index for d in PACK.drawings if d.class_index == index
        ]
        assert all(d.family == family_of_set[d.set_name] for d in drawings)
        trained, held_out = {d.family for d in train}, {d.family for d in validation}
        assert len(held_out) == 1
        assert not trained & held_out
        assert len(trained) >= 2
        assert len(train) >= 2


def test_split_counts_and_every_family_is_held_out_somewhere():
    assert sum(map(len, SPLIT["train"])) == 7_999
    assert sum(map(len, SPLIT["validation"])) == 2_655
    held_out = collections.Counter(drawings[0].family for drawings in SPLIT["validation"])
    assert held_out == {
        "google": 408, "twemoji": 404, "fluent": 411, "emojione": 234, "fxemoji": 120,
    }  # fmt: skip
    assert FAMILIES == ("google", "twemoji", "fluent", "emojione", "fxemoji")


def test_held_out_designs_are_not_copies_of_training_designs():
    """Reduced to 16x16 on grey, the nearest pairs are plain shapes: a minus, a square, a web."""

    def reduced(drawing):
        sprite = PACK.sprite(drawing.index).astype(np.float32)
        alpha = sprite[..., 3:] / 255
        on_grey = sprite[..., :3] * alpha + 128 * (1 - alpha)
        return cv2.resize(on_grey, (16, 16), interpolation=cv2.INTER_AREA)

    small = [reduced(drawing) for drawing in PACK.drawings]
    distances = [
        float(np.sqrt(np.mean((small[a.index] - small[b.index]) ** 2)))
        for train, validation in zip(SPLIT["train"], SPLIT["validation"], strict=True)
        for a in train
        for b in validation
    ]
    assert len(distances) == 12_318
    assert min(distances) > 7
    assert sum(distance < 10 for distance in distances) == 13
    assert np.median(distances) > 40


def test_attribution_names_every_set():
    text = (FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert text == attribution(collections.Counter(d.set_name for d in PACK.drawings))
    assert {s.licence for s in SETS} == {"Apache-2.0", "MIT", "CC-BY-4.0"}
    for emoji_set in SETS:
        assert f"{emoji_set.package.name} {emoji_set.package.version}" in text
