"""Rectangles of the sizes that timm draws, filled with noise or with nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.augment.erasing import random_erasing

SIZE = 64


def erased_boxes(images) -> list[tuple[int, int, int, int]]:
    """Top, bottom, left, right of what is not 7 in each image; images without are left out."""
    boxes = []
    for changed in (np.asarray(images) != 7).any(-1):
        if changed.any():
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            boxes.append((rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
            assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    return boxes


def test_sizes_and_places(key):
    images = jnp.full((2000, SIZE, SIZE, 1), 7.0)
    boxes = np.array(erased_boxes(random_erasing(images, 0.5, "const", key)))
    assert abs(len(boxes) - 1000) < 4 * np.sqrt(500)
    heights, widths = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    areas, aspects = heights * widths / SIZE**2, heights / widths
    assert 0.015 < areas.min() < 0.03
    assert 0.29 < areas.max() < 0.345
    assert 0.27 < aspects.min() < 0.35
    assert 2.9 < aspects.max() < 3.7
    # Even in area between 0.02 and 1/3, but for the large and long that do not fit.
    assert areas.mean() == pytest.approx(0.174, abs=0.015)
    assert (heights < SIZE).all()
    assert (widths < SIZE).all()
    # To the borders, and evenly about the middle.
    assert boxes[:, [0, 2]].min() == 0
    assert boxes[:, [1, 3]].max() == SIZE
    centers = boxes.reshape(-1, 2, 2).mean(-1).mean(0)
    np.testing.assert_allclose(centers, SIZE / 2, atol=2)


def test_modes(key):
    images = jnp.full((64, 16, 16, 3), 7.0, jnp.bfloat16)
    flat = random_erasing(images, 1.0, "const", key)
    noisy = random_erasing(images, 1.0, "pixel", key)
    assert flat.dtype == noisy.dtype == jnp.bfloat16
    assert len(erased_boxes(flat)) == 64
    assert set(np.unique(flat).tolist()) == {0.0, 7.0}
    inside = np.asarray(noisy, np.float32)[np.asarray(flat) == 0]
    assert (inside.mean(), inside.std()) == pytest.approx((0, 1), abs=0.05)
    np.testing.assert_array_equal(np.asarray(noisy)[flat == 7], 7)


def test_probability_zero_changes_nothing(key):
    images = jnp.full((8, 8, 8, 3), 7.0)
    np.testing.assert_array_equal(random_erasing(images, 0.0, "pixel", key), images)


def test_the_same_key_erases_the_same(key):
    images = jnp.full((8, 32, 32, 3), 7.0)
    once = random_erasing(images, 0.5, "pixel", key)
    jitted = jax.jit(random_erasing, static_argnames=("prob", "mode"))
    np.testing.assert_allclose(once, jitted(images, 0.5, "pixel", key), rtol=1e-5)
    assert (once != random_erasing(images, 0.5, "pixel", jax.random.key(1))).any()
