"""One picture for each operation, under its name."""

import sys

import numpy as np
import pytest
from matplotlib import image as images

from pnet_jax.analysis import augmentations
from pnet_jax.augment.rand_augment import OPERATIONS


@pytest.fixture
def picture(rng):
    return rng.integers(0, 256, (24, 32, 3), np.uint8)


def test_examples(picture):
    drawn = augmentations.examples(picture, 9.0)
    assert [name.removesuffix(" 9") for name in drawn][1:16] == list(OPERATIONS)
    assert len(drawn) == 19
    np.testing.assert_array_equal(drawn["invert 9"], 255 - picture)
    for name, image in drawn.items():
        assert (image.shape, image.dtype) == (picture.shape, np.uint8)
        if name not in ("original", "autocontrast 9"):
            assert (image != picture).any(), name


def test_draws_a_file(picture, tmp_path, monkeypatch):
    source, out = tmp_path / "picture.png", tmp_path / "augment.png"
    images.imsave(source, picture)
    arguments = [
        "augmentations",
        f"--image={source}",
        f"--out={out}",
        "--box",
        "2",
        "3",
        "20",
        "16",
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(
        augmentations, "examples", lambda image, magnitude: {str(image.shape): image}
    )
    augmentations.main()
    drawn = images.imread(out)
    assert drawn.shape[0] > 100
    assert 0 < (drawn[..., :3] < 0.9).any(-1).mean() < 0.5
