"""Equal to Pillow, to the bit, with a parameter of each image."""

import jax.numpy as jnp
import numpy as np
from PIL import ImageOps

from pnet_jax.augment.levels import invert, posterize, solarize, solarize_add


def test_posterize(pictures, by_pillow):
    bits = np.arange(12) % 8 + 1
    expected = by_pillow(ImageOps.posterize, pictures, bits)
    np.testing.assert_array_equal(posterize(pictures, jnp.array(bits)), expected)


def test_posterize_to_no_bits_is_black(pictures):
    assert not np.any(posterize(pictures, jnp.zeros(12, jnp.int32)))
    assert not np.any(posterize(pictures, jnp.full(12, -3)))


def test_solarize(pictures, by_pillow):
    thresholds = np.array([0, 1, 26, 77, 78, 128, 200, 254, 255, 256, 100, 50])
    expected = by_pillow(ImageOps.solarize, pictures, thresholds)
    np.testing.assert_array_equal(solarize(pictures, jnp.array(thresholds)), expected)
    np.testing.assert_array_equal(solarize(pictures, jnp.full(12, 256)), pictures)


def test_solarize_add(pictures, by_pillow):
    """timm's operation, a table that adds below 128."""
    amounts = np.array([0, 1, 11, 50, 99, 110, 127, 128, 128, 64, 126, 5])
    table = lambda amount: [min(255, i + amount) if i < 128 else i for i in range(256)] * 3  # noqa: E731
    expected = by_pillow(lambda image, n: image.point(table(n)), pictures, amounts)
    np.testing.assert_array_equal(solarize_add(pictures, jnp.array(amounts)), expected)


def test_invert(pictures, by_pillow):
    expected = by_pillow(ImageOps.invert, pictures)
    np.testing.assert_array_equal(invert(pictures), expected)
    np.testing.assert_array_equal(solarize(pictures, jnp.zeros(12)), expected)
