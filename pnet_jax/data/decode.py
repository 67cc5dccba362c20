"""A JPEG's bytes to uint8 pixels: all of them, or the part that a crop takes.

Flips and floats happen on the device.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from pnet_jax.data.crop import Box

# Built where libjpeg-turbo's headers are found; all works without, to the same bits.
jpeg: Any = None
with contextlib.suppress(ImportError):
    from pnet_jax.data import _jpeg

    jpeg = _jpeg

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


def decode_part(encoded: bytes, choose: Callable[[int, int], Box]) -> np.ndarray | None:
    """The part of `decode(encoded)` that `choose(height, width)` names, or None.

    Of an ordinary JPEG only the rows down to the part's end are read, and only the part becomes
    pixels: two thirds of the time.
    """
    size = jpeg.size(encoded) if jpeg is not None else None
    if size is None:
        image = decode(encoded)
        return None if image is None else choose(*image.shape[:2]).of(image)
    box = choose(*size)
    found = jpeg.decode(encoded, box.top, box.left, box.height, box.width)
    if found is None:  # damaged; OpenCV may still make something of it
        image = decode(encoded)
        return None if image is None else box.of(image)
    pixels, first, columns = found
    rows = np.frombuffer(pixels, np.uint8).reshape(box.height, columns, 3)
    return rows[:, box.left - first :][:, : box.width]
