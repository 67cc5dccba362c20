"""A JPEG's bytes to the square uint8 image that the network takes.

Flips and floats happen on the device.
"""

import math

import cv2
import numpy as np

# The pipeline decodes many images at once; OpenCV's own threads would only get in each other's way.
cv2.setNumThreads(1)

# Nobody else turns images by their EXIF orientation, so training data are taken as they are stored.
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def decode(encoded: bytes) -> np.ndarray | None:
    """`[H, W, 3]` uint8 RGB, or None if the bytes are no whole image.

    Whatever OpenCV reads is taken: JPEG (grayscale and CMYK too), PNG, WebP. A file cut short gives
    None; bytes that are wrong inside a JPEG mostly cannot be told from an odd picture.
    """
    if not encoded:
        return None
    try:
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), _FLAGS)
    except cv2.error:  # a header that claims an impossible size
        return None


def random_resized_crop(
    image: np.ndarray,
    size: int,
    rng: np.random.Generator,
    *,
    area_min: float,
    area_max: float,
) -> np.ndarray:
    """A random part of the image as `[size, size, 3]` uint8 (Szegedy et al. 2014, arXiv 1409.4842).

    Its area is a share in [`area_min`, `area_max`] of the image's, its shape between 3:4 and 4:3.
    If ten random ones do not fit, the largest central part of an admissible shape is taken.
    """
    height, width = image.shape[:2]
    for _ in range(10):
        area = height * width * rng.uniform(area_min, area_max)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            return _resize(image[top : top + h, left : left + w], size, cv2.INTER_LINEAR)
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    top, left = (height - h) // 2, (width - w) // 2
    return _resize(image[top : top + h, left : left + w], size, cv2.INTER_LINEAR)


def central_crop(image: np.ndarray, size: int, *, share: float) -> np.ndarray:
    """The central square with `share` of the shorter side, as `[size, size, 3]`."""
    height, width = image.shape[:2]
    side = max(1, round(min(height, width) * share))
    top, left = (height - side) // 2, (width - side) // 2
    shrinks = side > size
    return _resize(
        image[top : top + side, left : left + side],
        size,
        cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )


def _resize(image: np.ndarray, size: int, interpolation: int) -> np.ndarray:
    if image.shape[:2] == (size, size):
        return np.ascontiguousarray(image)
    return cv2.resize(image, (size, size), interpolation=interpolation)
