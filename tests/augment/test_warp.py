"""Shears and translations within one level of Pillow, rotations within interpolation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from pnet_jax.augment.warp import Warp, warp

FILL = (124, 116, 104)
AMOUNTS = np.linspace(-1, 1, 12).astype(np.float32)
BILINEAR = Image.Resampling.BILINEAR


def ours(images, max_degrees=30.0, max_pixels=22.0, **field) -> np.ndarray:
    zeros = {name: jnp.zeros(len(images)) for name in Warp.__dataclass_fields__}
    warped = jax.jit(warp, static_argnames=("fill", "max_degrees", "max_pixels"))(
        images, Warp(**zeros | field), fill=FILL, max_degrees=max_degrees, max_pixels=max_pixels
    )
    return np.asarray(warped).astype(int)


def affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, BILINEAR, fillcolor=FILL)


def test_zeros_change_nothing(pictures):
    np.testing.assert_array_equal(ours(pictures), pictures)


@pytest.mark.parametrize(
    ("field", "most", "matrix"),
    [
        ("shear_x", 0.3, lambda v: (1, v, 0, 0, 1, 0)),
        ("shear_y", 0.3, lambda v: (1, 0, 0, v, 1, 0)),
        ("translate_x", 21.6, lambda v: (1, 0, v, 0, 1, 0)),
        ("translate_y", 18.0, lambda v: (1, 0, 0, 0, 1, v)),
    ],
)
def test_shears_and_translations(field, most, matrix, pictures, by_pillow):
    values = AMOUNTS * most
    expected = by_pillow(lambda image, v: affine(image, *matrix(v)), pictures, values)
    error = np.abs(ours(pictures, **{field: values}) - expected)
    assert error.max() <= 1
    assert (error == 0).mean() > 0.95
    assert (expected == FILL).all(-1).any()


def test_translation_by_whole_pixels_is_exact(pictures):
    moved = ours(pictures, translate_x=jnp.full(12, 5.0))
    np.testing.assert_array_equal(moved[:, :, :-5], pictures[:, :, 5:])
    assert (moved[:, :, -5:] == FILL).all()


def test_rotations(pictures, by_pillow):
    """Smooth pictures: a mean error below one level, nearer than Pillow's bicubic is; and the same
    pixels filled."""
    smooth, degrees = pictures[:8], 30 * AMOUNTS[[0, 1, 2, 4, 7, 8, 10, 11]]
    expected, bicubic = (
        by_pillow(lambda image, v, how=how: image.rotate(v, how, fillcolor=FILL), smooth, degrees)
        for how in (BILINEAR, Image.Resampling.BICUBIC)
    )
    error = np.abs(ours(smooth, rotate=degrees) - expected)
    assert error.mean() < 1
    assert np.percentile(error, 99) <= 10
    assert error.mean() < 0.6 * np.abs(bicubic.astype(int) - expected).mean()
    filled = (ours(np.full_like(smooth, 7), rotate=degrees) == FILL).all(-1)
    expected = by_pillow(
        lambda image, v: image.rotate(v, BILINEAR, fillcolor=FILL), np.full_like(smooth, 7), degrees
    )
    assert (filled != (expected == FILL).all(-1)).sum() <= 2


def test_large_angles(pictures, by_pillow):
    """Magnitudes above 10 turn further; the shears are wider, and blur a little more."""
    smooth, degrees = pictures[:4], np.float32([90, -90, 60, -75])
    turned = ours(smooth, max_degrees=90.0, rotate=degrees)
    expected = by_pillow(lambda i, v: i.rotate(v, BILINEAR, fillcolor=FILL), smooth, degrees)
    assert np.abs(turned - expected).mean() < 2


def test_what_is_far_from_the_bounds_does_not_depend_on_them(pictures):
    degrees = 10 * AMOUNTS
    near = ours(pictures, max_degrees=11.0, max_pixels=0.0, rotate=degrees)
    np.testing.assert_array_equal(ours(pictures, rotate=degrees), near)
