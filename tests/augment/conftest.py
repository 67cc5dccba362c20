"""Pictures that augmentations are tried on, and what Pillow makes of them."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

NUM_PICTURES = 12
HEIGHT, WIDTH = 40, 48


@pytest.fixture
def pictures(rng) -> np.ndarray:
    """`[12, 40, 48, 3]` uint8: smooth ones, some of less contrast, a noisy one, plain ones."""
    coarse = rng.normal(128, 60, (NUM_PICTURES, HEIGHT // 8, WIDTH // 8, 3))
    images = np.empty((NUM_PICTURES, HEIGHT, WIDTH, 3), np.uint8)
    for image, blobs in zip(images, coarse.clip(0, 255).astype(np.uint8), strict=True):
        image[:] = np.asarray(
            Image.fromarray(blobs).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        )
    low, high = rng.integers(0, 100, (5, 1, 1, 3)), rng.integers(120, 256, (5, 1, 1, 3))
    images[2:7] = images[2:7].clip(low, high)
    images[8] = rng.integers(0, 256, images[8].shape)
    images[9] = 77
    images[10] = np.where(images[10] < 128, 3, 250)
    images[11, ..., 0] = 0
    return images


@pytest.fixture
def by_pillow() -> Callable[..., np.ndarray]:
    """`by_pillow(function, images, *values)`: the function of each image and its values."""

    def apply(function, images, *values) -> np.ndarray:
        return np.stack(
            [
                np.asarray(function(Image.fromarray(image), *(v.item() for v in each)))
                for image, *each in zip(images, *map(np.asarray, values), strict=True)
            ]
        )

    return apply
