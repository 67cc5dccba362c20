"""Equal to Pillow, to the bit."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps

from pnet_jax.augment.histogram import (
    apply_tables,
    autocontrast,
    autocontrast_tables,
    equalize,
    equalize_tables,
    histograms,
)


def test_histograms(pictures, by_pillow):
    expected = by_pillow(lambda image: image.histogram(), pictures).reshape(12, 3, 256)
    np.testing.assert_array_equal(histograms(pictures), expected)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(autocontrast, ImageOps.autocontrast), (equalize, ImageOps.equalize)]
)
def test_operations(ours, theirs, pictures, by_pillow):
    expected = by_pillow(theirs, pictures)
    np.testing.assert_array_equal(ours(pictures), expected)
    assert (expected != pictures).any()


def test_one_level_alone_stays():
    """Picture 9 is plain, picture 11 has a plain channel."""
    plain = np.full((2, 4, 4, 3), [[[[9, 0, 255]]]], np.uint8)
    np.testing.assert_array_equal(autocontrast(plain), plain)
    np.testing.assert_array_equal(equalize(plain), plain)


def test_autocontrast_of_every_range():
    """All 32,640 pairs of a lowest and a highest level, the levels between them included."""
    low, high = np.triu_indices(256, 1)
    counts = np.zeros((len(low), 1, 256), np.int32)
    counts[np.arange(len(low)), 0, low] = 1
    counts[np.arange(len(low)), 0, high] = 1
    tables = np.asarray(autocontrast_tables(jnp.asarray(counts)))[:, 0]
    scale = 255.0 / (high - low)
    expected = np.arange(256) * scale[:, None] + (-low * scale)[:, None]
    np.testing.assert_array_equal(tables, np.trunc(expected).clip(0, 255))
    # Double precision matters: this many levels differ from the quotient's whole part.
    levels, exact = np.arange(256), 255 * (np.arange(256) - low[:, None]) // (high - low)[:, None]
    inside = (levels >= low[:, None]) & (levels <= high[:, None])
    assert (inside & (tables != exact)).sum() == 12094


def test_equalize_of_rare_and_frequent_levels(rng):
    """Histograms whose steps are small, where quotients go beyond 255, against Pillow."""
    images = np.zeros((6, 16, 17, 3), np.uint8)
    images[0, 0] = 255
    images[1, :, 1:] = rng.integers(250, 256, (16, 16, 3))
    images[2] = rng.integers(0, 2, (16, 17, 3)) * 255
    images[3] = rng.integers(0, 256, (16, 17, 3))
    images[4] = np.arange(16 * 17).reshape(16, 17, 1) // 2
    images[5, 0, 0] = 1
    expected = [np.asarray(ImageOps.equalize(Image.fromarray(image))) for image in images]
    np.testing.assert_array_equal(equalize(images), expected)
    assert equalize_tables(histograms(images)).dtype == jnp.uint8


def test_tables_are_looked_up(rng):
    images = rng.integers(0, 256, (3, 5, 7, 2), np.uint8)
    tables = rng.integers(0, 256, (3, 2, 256), np.uint8)
    ours = np.asarray(apply_tables(images, tables))
    for n, y, x, c in np.ndindex(images.shape):
        assert ours[n, y, x, c] == tables[n, c, images[n, y, x, c]]
