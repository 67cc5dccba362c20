"""Strings mean what they mean in timm, and operations do what Pillow does at that magnitude."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from pnet_jax.augment.rand_augment import (
    OPERATIONS,
    Choice,
    RandAugment,
    apply,
    draw,
    rand_augment,
)

FILL = (124, 116, 104)
EXACT = {*OPERATIONS[:6]}
ENHANCEMENTS = ("Color", "Contrast", "Brightness", "Sharpness")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("rand", {}),
        ("rand-m9-mstd0.5-inc1", {"magnitude": 9, "magnitude_std": 0.5, "increasing": True}),
        ("rand-m9-n3-mstd0.5", {"magnitude": 9, "num_layers": 3, "magnitude_std": 0.5}),
        (
            "rand-inc1-p0.25-m15-mmax30",
            {"increasing": True, "prob": 0.25, "magnitude": 15, "magnitude_max": 30},
        ),
        ("rand-m7-mstd101", {"magnitude": 7, "magnitude_std": math.inf}),
        ("rand-m7-mstdinf-inc0", {"magnitude": 7, "magnitude_std": math.inf}),
    ],
)
def test_strings(text, fields):
    assert RandAugment.parse(text) == RandAugment(**fields)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("augmix-m3", "is no RandAugment; write it as"),
        ("rand-m9-tweights", "'tweights' of 'rand-m9-tweights' cannot be read"),
        ("rand-m9.5", "'m9.5'"),
        ("rand-9", "'9' of"),
        ("rand-p2", "goes too far"),
        ("", "is no RandAugment"),
    ],
)
def test_strings_that_cannot_be_read(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        RandAugment.parse(text)


def by_definition(name: str, image: Image.Image, magnitude: float, sign: float, increasing: bool):
    """What timm documents of an operation's magnitude, done by Pillow."""
    share, width, height = magnitude / 10, *image.size
    if name.title() in ENHANCEMENTS:
        factor = max(0.1, 1 + sign * 0.9 * share) if increasing else 0.1 + 1.8 * share
        return getattr(ImageEnhance, name.title())(image).enhance(factor)
    if name == "posterize":
        bits = 4 - int(share * 4) if increasing else int(share * 4)
        return ImageOps.posterize(image, bits) if bits else Image.new("RGB", image.size)
    if name == "solarize":
        level = min(256, int(share * 256))
        return ImageOps.solarize(image, 256 - level if increasing else level)
    if name == "solarize_add":
        table = [min(255, i + min(128, int(share * 110))) if i < 128 else i for i in range(256)]
        return image.point(table * 3)
    if name in ("autocontrast", "equalize", "invert"):
        return getattr(ImageOps, name)(image)
    if name == "rotate":
        return image.rotate(sign * 30 * share, Image.Resampling.BILINEAR, fillcolor=FILL)
    shear, moved = sign * 0.3 * share, sign * 0.45 * share
    matrix = {
        "shear_x": (1, shear, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, shear, 1, 0),
        "translate_x": (1, 0, moved * width, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, moved * height),
    }[name]
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL
    )


@pytest.mark.parametrize("increasing", [True, False])
def test_each_operation_at_each_magnitude(increasing, pictures):
    """One smooth picture, whole magnitudes 0 to 10 and both signs: all 15 operations in one batch
    each, by the same compiled program."""
    how = RandAugment(increasing=increasing, prob=1.0)
    magnitude = np.repeat(np.arange(11, dtype=np.float32), 2)
    sign = np.tile(np.float32([1, -1]), 11)
    images = np.broadcast_to(pictures[2], (22, *pictures.shape[1:]))
    run = jax.jit(lambda images, choice: apply(images, choice, how, fill=FILL))
    for number, name in enumerate(OPERATIONS):
        choice = Choice(jnp.full(22, number), jnp.asarray(magnitude), jnp.asarray(sign))
        ours = np.asarray(run(images, choice)).astype(int)
        expected = [
            np.asarray(
                by_definition(name, Image.fromarray(pictures[2]), m.item(), s.item(), increasing)
            )
            for m, s in zip(magnitude, sign, strict=True)
        ]
        error = np.abs(ours - expected)
        if name in EXACT:
            assert error.max() == 0, name
        elif name == "rotate":
            assert error.mean() < 1
        else:
            assert error.max() <= 1, name
    idle = Choice(jnp.full(22, -1), jnp.asarray(magnitude), jnp.asarray(sign))
    np.testing.assert_array_equal(run(images, idle), images)


def test_a_mixed_batch_is_its_images_one_by_one(pictures, key):
    """Neighbours do not matter, nor how many want the same operation."""
    how = RandAugment(magnitude=9, magnitude_std=0.5, prob=0.9, increasing=True)
    choice = draw(how, 12, key)
    assert len(set(choice.operation.tolist())) >= 6
    run = jax.jit(lambda images, choice: apply(images, choice, how, fill=FILL))
    together = run(pictures, choice)
    one = jax.jit(lambda image, choice: apply(image, choice, how, fill=FILL))
    for i in range(12):
        own = Choice(*(leaf[i : i + 1] for leaf in jax.tree.leaves(choice)))
        alone = one(pictures[i : i + 1], own)
        np.testing.assert_array_equal(together[i], alone[0])


def test_draws(key):
    how = RandAugment.parse("rand-m9-mstd0.5-inc1")
    choice = jax.device_get(draw(how, 20_000, key))
    counts = np.bincount(choice.operation + 1, minlength=16) / 20_000
    assert counts[0] == pytest.approx(0.5, abs=0.015)
    np.testing.assert_allclose(counts[1:], 0.5 / 15, atol=0.006)
    assert choice.magnitude.max() == 10
    # Clipped at 10: half of the distribution's upper two standard deviations is a tail of 2.3%.
    assert (choice.magnitude == 10).mean() == pytest.approx(0.0228, abs=0.005)
    assert np.median(choice.magnitude) == pytest.approx(9, abs=0.02)
    assert choice.sign.mean() == pytest.approx(0, abs=0.03)
    assert set(choice.sign.tolist()) == {1.0, -1.0}
    even = draw(dataclasses.replace(how, magnitude_std=math.inf), 20_000, key).magnitude
    assert (float(even.mean()), float(even.max())) == pytest.approx((4.5, 9), abs=0.1)
    fixed = draw(dataclasses.replace(how, magnitude_std=0.0, magnitude=12), 10, key).magnitude
    assert (fixed == 10).all()


def test_layers_follow_each_other(pictures, key):
    how = RandAugment(prob=1.0, increasing=True)
    keys = jax.random.split(key, 2)
    expected = pictures
    for each in keys:
        expected = apply(expected, draw(how, 12, each), how, fill=FILL)
    np.testing.assert_array_equal(rand_augment(pictures, how, key, fill=FILL), expected)
