"""Rendering is deterministic, keeps the drawing visible and the colours in range."""

import cv2
import numpy as np
import pytest

from pnet_jax.data.emoji import render, sprites


@pytest.mark.parametrize("image_size", [32, 64, 128])
def test_shape_and_determinism(image_size):
    sprite = sprites.load().sprite(100)
    before = sprite.copy()
    pictures = [render.render(sprite, image_size, np.random.default_rng(7)) for _ in range(2)]
    assert pictures[0].shape == (image_size, image_size, 3)
    assert pictures[0].dtype == np.uint8
    assert np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(sprite, before)
    other = render.render(sprite, image_size, np.random.default_rng(8))
    assert not np.array_equal(pictures[0], other)


def test_the_drawing_is_in_the_picture():
    """The same random choices with and without the drawing differ about where it is, only."""
    square = np.zeros((64, 64, 4), np.uint8)
    square[16:48, 16:48] = (10, 200, 30, 255)
    nothing = np.zeros_like(square)
    covered = []
    for seed in range(200):
        with_it, without = (
            render.render(sprite, 64, np.random.default_rng(seed)).astype(int)
            for sprite in (square, nothing)
        )
        covered.append((np.abs(with_it - without).max(axis=-1) > 12).mean())
    # The square is a quarter of its frame, and the frame .65 to 1.05 of the picture's side.
    assert 0.25 * 0.65**2 < np.mean(covered) < 0.25 * 1.05**2
    assert np.mean(np.array(covered) > 0.05) > 0.97


def test_backgrounds_vary():
    nothing = np.zeros((64, 64, 4), np.uint8)
    pictures = np.stack(
        [render.render(nothing, 64, np.random.default_rng(seed)) for seed in range(200)]
    ).astype(np.float32)
    assert 90 < pictures.mean() < 165
    assert pictures.mean(axis=(1, 2, 3)).std() > 30  # between pictures
    assert np.median(pictures.std(axis=(1, 2)).mean(axis=1)) > 20  # within one


def test_jpeg_is_close_to_the_picture():
    picture = render.render(sprites.load().sprite(3), 64, np.random.default_rng(0))
    encoded = render.encode_jpeg(picture)
    assert encoded[:3] == b"\xff\xd8\xff"
    decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(decoded.astype(int) - picture).mean() < 8
