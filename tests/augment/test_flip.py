"""Horizontal flips: exact mirrors, of half of the images, the same for the same key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.augment.flip import random_flip


def test_each_image_is_itself_or_its_mirror(rng, key):
    images = rng.integers(0, 256, size=(64, 4, 5, 3), dtype=np.uint8)
    flipped = np.asarray(random_flip(images, key))
    assert (flipped.shape, flipped.dtype) == (images.shape, np.uint8)
    mirrored = np.array([not np.array_equal(a, b) for a, b in zip(flipped, images, strict=True)])
    expected = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    np.testing.assert_array_equal(flipped, expected)
    assert 0 < mirrored.sum() < 64


def test_the_same_key_flips_back(rng, key):
    images = jnp.float32(rng.normal(size=(16, 3, 4, 2)))
    flipped = random_flip(images, key)
    np.testing.assert_array_equal(flipped, jax.jit(random_flip)(images, key))
    np.testing.assert_array_equal(random_flip(flipped, key), images)
    assert (random_flip(images, jax.random.key(1)) != flipped).any()


def test_half_of_the_images_are_flipped(key):
    images = jnp.broadcast_to(jnp.array([0.0, 1.0])[None, None, :, None], (10_000, 1, 2, 1))
    share = float(random_flip(images, key)[:, 0, 0, 0].mean())
    assert share == pytest.approx(0.5, abs=4 * 0.5 / 100)  # four standard errors
