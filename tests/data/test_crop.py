"""Crops are what the papers say."""

import math

import cv2
import numpy as np
import pytest

from pnet_jax.data.crop import central_crop, random_box, resize


@pytest.fixture
def picture(rng) -> np.ndarray:
    """`[60, 80, 3]` uint8 RGB, smooth, so that JPEG changes it little."""
    noise = rng.uniform(0, 255, (60, 80, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 8)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def crop_randomly(image: np.ndarray, size: int, rng, **areas: float) -> np.ndarray:
    return resize(random_box(*image.shape[:2], rng, **areas).of(image), size)


def coordinates(height: int, width: int) -> np.ndarray:
    """`[H, W, 3]` uint8 whose first two channels are the row and the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.dstack([rows, columns, np.zeros_like(rows)]).astype(np.uint8)


class Recorder:
    """An rng that gives given numbers, in the order the crop asks: area, log ratio, ..."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = list(numbers)
        self.bounds: list[tuple[float, ...]] = []

    def uniform(self, low: float, high: float) -> float:
        self.bounds.append((low, high))
        return self.numbers.pop(0)

    def integers(self, high: int) -> int:
        self.bounds.append((high,))
        return int(self.numbers.pop(0))


def test_a_known_random_crop():
    # A quarter of 40 x 64 is 640 pixels; at the ratio 1.6 they are 32 wide and 20 high.
    numbers = Recorder(0.25, math.log(1.6), 5, 7)
    crop = crop_randomly(coordinates(40, 64), 20, numbers, area_min=0.08, area_max=1.0)
    assert numbers.bounds == [(0.08, 1.0), (math.log(3 / 4), math.log(4 / 3)), (21,), (33,)]
    assert crop.shape == (20, 20, 3)
    np.testing.assert_array_equal(crop[:, 0, 0], 5 + np.arange(20))  # the height is not resized
    # Columns 7 ... 38 halfway between pixel centres: 7 + 1.6 (i + .5) - .5, rounded.
    expected = 7 + 1.6 * (np.arange(20) + 0.5) - 0.5
    assert np.abs(crop[0, :, 1] - expected).max() <= 0.51


def test_a_shape_that_does_not_fit_is_drawn_again():
    # 90% of a 10 x 40 strip at 4:3 is 22 wide and 16 high: too high; then 10% fits.
    numbers = Recorder(0.9, math.log(4 / 3), 0.1, 0.0, 2, 3)
    crop = crop_randomly(coordinates(10, 40), 6, numbers, area_min=0.08, area_max=1.0)
    assert numbers.numbers == []
    np.testing.assert_array_equal(crop[..., 0], np.tile(np.arange(2, 8)[:, None], (1, 6)))
    np.testing.assert_array_equal(crop[..., 1], np.tile(np.arange(3, 9), (6, 1)))


def test_after_ten_misfits_the_centre_is_taken():
    # No square of 90% of the area fits in 12 x 40; the widest admissible part is 12 x 16.
    numbers = Recorder(*[0.9, 0.0] * 10)
    crop = crop_randomly(coordinates(12, 40), 12, numbers, area_min=0.9, area_max=0.9)
    assert numbers.numbers == []
    np.testing.assert_array_equal(crop[:, 0, 0], np.arange(12))
    assert (crop[0, 0, 1], crop[0, -1, 1]) == (12, 27)  # columns 12 ... 27 of 40
    tall = crop_randomly(
        coordinates(40, 12), 12, Recorder(*[0.9, 0.0] * 10), area_min=0.9, area_max=0.9
    )
    assert (tall[0, 0, 0], tall[-1, 0, 0]) == (12, 27)


def test_random_crops_keep_their_bounds(rng):
    """Area uniform in its bounds, log ratio uniform, position uniform."""
    height, width = 200, 240
    image = coordinates(height, width)
    # Enlarged, a crop still begins and ends with the pixels that its part of the image does.
    crops = [
        crop_randomly(image, 256, rng, area_min=0.1, area_max=0.6)[[0, -1], [0, -1], :2]
        for _ in range(4000)
    ]
    (tops, lefts), (bottoms, rights) = np.array(crops, float).transpose(1, 2, 0)
    heights, widths = bottoms - tops + 1, rights - lefts + 1
    areas = heights * widths / (height * width)
    # Sides are rounded to whole pixels.
    assert 0.1 - 0.004 < areas.min() < 0.11
    assert 0.59 < areas.max() < 0.6 + 0.004
    assert abs(areas.mean() - 0.35) < 0.01
    ratios = np.log(widths / heights)
    assert abs(ratios.min() - math.log(3 / 4)) < 0.02
    assert abs(ratios.max() - math.log(4 / 3)) < 0.02
    assert abs(ratios.mean()) < 0.01
    assert abs(ratios.std() - math.log(16 / 9) / math.sqrt(12)) < 0.005
    for first, length, whole in ((tops, heights, height), (lefts, widths, width)):
        relative = first / (whole - length)
        assert relative.min() == 0
        assert relative.max() == 1
        assert abs(relative.mean() - 0.5) < 0.02


def test_random_crop_of_any_shape(rng):
    for height, width in ((1, 1), (1, 500), (300, 2), (7, 5)):
        image = np.full((height, width, 3), 9, np.uint8)
        for _ in range(20):
            crop = crop_randomly(image, 16, rng, area_min=0.08, area_max=1.0)
            assert crop.shape == (16, 16, 3)
            assert (crop == 9).all()


def test_the_same_rng_gives_the_same_crop(picture):
    def crop(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return crop_randomly(picture, 24, rng, area_min=0.08, area_max=1.0)

    np.testing.assert_array_equal(crop(3), crop(3))
    assert (crop(3) != crop(4)).any()


@pytest.mark.parametrize(
    ("height", "width", "size", "share", "top", "left"),
    [
        (32, 32, 28, 0.875, 2, 2),  # 28 of 32 pixels, nothing to resize
        (40, 64, 40, 1.0, 0, 12),
        (64, 40, 20, 0.5, 22, 10),
    ],
)
def test_central_crop_is_the_centre(height, width, size, share, top, left):
    crop = central_crop(coordinates(height, width), size, share=share)
    assert crop.flags.c_contiguous
    np.testing.assert_array_equal(crop[:, 0, 0], top + np.arange(size))
    np.testing.assert_array_equal(crop[0, :, 1], left + np.arange(size))


def test_central_crop_shrinks_by_averaging(rng):
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    crop = central_crop(image, 10, share=1.0)
    blocks = image[:, 5:45].reshape(10, 4, 10, 4, 3).mean((1, 3))
    assert np.abs(crop - blocks).max() <= 0.51


def test_central_crop_of_a_small_image_enlarges(rng):
    image = rng.integers(0, 256, (3, 5, 3), dtype=np.uint8)
    crop = central_crop(image, 16, share=0.875)
    assert crop.shape == (16, 16, 3)
    np.testing.assert_array_equal(crop[0, 0], image[0, 1])  # the border stays
    one = central_crop(np.full((1, 1, 3), 7, np.uint8), 16, share=0.1)
    assert (one == 7).all()
