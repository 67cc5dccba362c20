"""What is kept, converted and rejected, byte by byte; damage that other decoders let through."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from pnet_jax.data.build.verify_image import MAX_PIXELS, check
from tests.data.release_tree import encoded, oddities, picture


def decoded(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


@pytest.mark.parametrize("name", oddities())
def test_each_oddity(name):
    content, reason = oddities()[name]
    result = check(content)
    if reason == "rejected":
        assert result.image is None
        assert result.reason
    elif reason:
        assert result.image != content
        assert result.reason.startswith(reason)
        assert decoded(result.image).shape == (40, 56, 3)
    else:
        assert (result.image, result.reason) == (content, "")


def test_converted_pictures_are_the_same_pictures():
    # Smooth noise at quality 95 with subsampled colours: a few levels.
    wanted = picture(5).astype(int)
    assert np.abs(decoded(check(encoded(5, "PNG")).image) - wanted).mean() < 4
    cmyk = np.asarray(Image.open(io.BytesIO(encoded(4, mode="CMYK"))).convert("RGB")).astype(int)
    assert np.abs(decoded(check(encoded(4, mode="CMYK")).image) - cmyk).mean() < 4


@pytest.mark.parametrize("cut", [1, 2, 3, 10, 100])
def test_every_cut_is_seen(cut):
    """A missing end marker alone is enough."""
    assert check(encoded(7)[:-cut]).image is None


def test_an_early_end_is_seen_where_opencv_returns_a_picture():
    """Coded data that stop at a whole byte with a proper end marker: only a warning tells."""
    jpeg = encoded(7)
    damaged = jpeg[: len(jpeg) * 3 // 4] + b"\xff\xd9"
    assert cv2.imdecode(np.frombuffer(damaged, np.uint8), 1) is not None
    result = check(damaged)
    assert result.image is None
    assert "premature end" in result.reason


def test_bytes_before_the_end_marker_lose_nothing_and_are_repaired():
    jpeg = encoded(7)
    result = check(jpeg[:-2] + b"\x12\x34\x56\x78" * 8 + b"\xff\xd9")
    assert result.reason.startswith("repaired: ")
    assert np.abs(decoded(result.image).astype(int) - decoded(jpeg)).mean() < 4


def test_what_stands_behind_the_end_is_kept():
    content = encoded(7) + b"\0" * 100
    assert check(content).image == content


def test_a_bomb_is_not_decoded():
    """A header that claims 65,000 x 65,000 pixels."""
    jpeg = bytearray(encoded(7))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    assert check(bytes(jpeg)).reason == f"over {MAX_PIXELS // 1_000_000} megapixels: 65000x65000"
    png = bytearray(encoded(7, "PNG"))
    png[16:24] = struct.pack(">II", 65_000, 65_000)
    assert check(bytes(png)).image is None


def test_shrinking_keeps_the_shape_and_leaves_small_ones():
    result = check(encoded(7), resize_short=20)
    assert (decoded(result.image).shape, result.reason) == ((20, 28, 3), "resized")
    assert check(encoded(7), resize_short=40).image == encoded(7)
