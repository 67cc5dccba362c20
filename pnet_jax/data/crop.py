"""Which part of an image the network sees, and its resize."""

import dataclasses
import math

import cv2
import numpy as np


@dataclasses.dataclass(frozen=True)
class Box:
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: np.ndarray) -> np.ndarray:
        """The part of `[H, W, C]`, a view."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def random_box(
    height: int, width: int, rng: np.random.Generator, *, area_min: float, area_max: float
) -> Box:
    """A random part of an image of that size (Szegedy et al. 2014, arXiv 1409.4842).

    Its area is a share in [`area_min`, `area_max`] of the image's, its shape between 3:4 and 4:3.
    If ten random ones do not fit, the largest central part of an admissible shape is taken.
    """
    for _ in range(10):
        area = height * width * rng.uniform(area_min, area_max)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            return Box(int(top), int(left), h, w)
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def central_box(height: int, width: int, *, share: float) -> Box:
    """The central square with `share` of the shorter side."""
    side = max(1, round(min(height, width) * share))
    return Box((height - side) // 2, (width - side) // 2, side, side)


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """`[H, W, 3]` to `[size, size, 3]` uint8, bilinear without smoothing, as training takes it."""
    return _resize(pixels, size, cv2.INTER_LINEAR)


def resize_smoothly(pixels: np.ndarray, size: int) -> np.ndarray:
    """`[H, W, 3]` to `[size, size, 3]` uint8, averaged where it shrinks, as for evaluation."""
    shrinks = pixels.shape[0] > size
    return _resize(pixels, size, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def central_crop(image: np.ndarray, size: int, *, share: float) -> np.ndarray:
    """What evaluation shows the network of `[H, W, 3]`: `[size, size, 3]` uint8."""
    box = central_box(*image.shape[:2], share=share)
    return resize_smoothly(box.of(image), size)


def _resize(pixels: np.ndarray, size: int, interpolation: int) -> np.ndarray:
    if pixels.shape[:2] == (size, size):
        return np.ascontiguousarray(pixels)
    return cv2.resize(pixels, (size, size), interpolation=interpolation)
