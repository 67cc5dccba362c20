"""Within one level of Pillow's enhancements."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from pnet_jax.augment.enhance import blend, grayscale, mean_gray, smooth

FACTORS = np.float32([0.1, 0.19, 0.4, 0.5, 0.77, 0.9, 1.0, 1.1, 1.3, 1.63, 1.81, 1.9])


@pytest.mark.parametrize(
    ("base", "enhancement"),
    [
        (grayscale, ImageEnhance.Color),
        (mean_gray, ImageEnhance.Contrast),
        (lambda images: jnp.zeros_like(images), ImageEnhance.Brightness),
        (smooth, ImageEnhance.Sharpness),
    ],
)
def test_enhancements(base, enhancement, pictures, by_pillow):
    ours = np.asarray(blend(base(pictures), pictures, FACTORS))
    expected = by_pillow(lambda image, f: enhancement(image).enhance(f), pictures, FACTORS)
    assert ours.dtype == np.uint8
    assert np.abs(ours.astype(int) - expected).max() <= 1
    assert (ours != pictures).any()


def test_bases_are_exact(pictures, by_pillow):
    gray = by_pillow(lambda image: image.convert("L"), pictures)
    np.testing.assert_array_equal(grayscale(pictures)[..., 0], gray)
    blurred = by_pillow(lambda image: image.filter(ImageFilter.SMOOTH), pictures)
    np.testing.assert_array_equal(smooth(pictures), blurred)
    means = [int(each.mean() + 0.5) for each in gray]
    np.testing.assert_array_equal(mean_gray(pictures)[:, 0, 0, 0], means)


@pytest.mark.parametrize("base", [grayscale, mean_gray, smooth])
def test_factor_one_changes_nothing(base, pictures):
    np.testing.assert_array_equal(blend(base(pictures), pictures, jnp.ones(12)), pictures)


def test_half_and_half_is_rounded_down():
    black, white = (Image.new("RGB", (3, 3), color) for color in ("black", "white"))
    ours = blend(jnp.asarray(black)[None], jnp.asarray(white)[None], jnp.array([0.5]))
    np.testing.assert_array_equal(ours[0], np.asarray(Image.blend(black, white, 0.5)))
    assert ours[0, 0, 0, 0] == 127
