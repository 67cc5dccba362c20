"""The comparison that every conversion goes through: it fails when it should, and says where."""

import itertools

import numpy as np
import pytest

from pnet_jax.augment.normalize import MEAN, STD
from pnet_jax.convert import verify
from pnet_jax.convert.source import Preprocessing
from pnet_jax.errors import UserError


def test_images_are_different_and_like_photographs():
    images = verify.sample_images(48)
    assert (images.shape, images.dtype) == ((verify.NUM_IMAGES, 48, 48, 3), np.uint8)
    for first, second in itertools.combinations(images, 2):
        assert np.abs(first.astype(int) - second).mean() > 20
    # Neighbours are alike, as in pictures and unlike in noise.
    gray = images.astype(float).mean(axis=-1)
    neighbours = np.abs(np.diff(gray, axis=2)).mean()
    assert neighbours < 0.8 * np.abs(gray[:, :, 24:] - gray[:, :, :24]).mean()
    floats = verify.normalized(images, Preprocessing(48, 0.875, MEAN, STD))
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats[0, 0, 0], (images[0, 0, 0] - MEAN) / STD, rtol=1e-5)


def test_differences_are_of_the_worst_image_in_its_own_deviation():
    expected = {"a": np.array([[-1.0, 1.0], [-100.0, 100.0]]), "logits": np.ones((2, 3))}
    actual = {"a": expected["a"] + [[0.5, 0.0], [10.0, 0.0]], "logits": np.ones((2, 3))}
    found = verify.differences(expected, actual)
    assert [(d.layer, round(d.value, 6)) for d in found] == [("a", 0.5), ("logits", 0.0)]
    broken = verify.differences(expected, actual | {"a": np.full((2, 2), np.nan)})
    assert broken[0].value > 1e300


def test_a_deviation_beyond_float32_hides_nothing():
    """Squares of such numbers overflow in float32, and whatever is divided by infinity is 0."""
    expected = np.array([[-1e25, 1e25]], np.float32)
    (found,) = verify.differences({"a": expected}, {"a": expected * [1.0, 0.5]})
    assert found.value == pytest.approx(0.5, rel=1e-6)


def test_the_first_layer_beyond_rounding_is_named():
    layers = [
        verify.Difference("stem", 9e-4),
        verify.Difference("block", 2e-3),
        verify.Difference("logits", 2e-4),
    ]
    with pytest.raises(UserError, match=r"first in block: by 2\.0e-03 .* logits by 2\.0e-04"):
        verify.require_equal(layers, verify.EXACT, "X")
    verify.require_equal([*layers[:2], verify.Difference("logits", 9e-5)], verify.EXACT, "X")
    with pytest.raises(UserError, match="first in logits"):
        verify.require_equal(layers[2:], verify.EXACT, "X")
    assert verify.report(layers)["largest_difference_in_std"] == {"block": 2e-3}


def test_rounding_is_judged_by_the_mean_square(rng):
    expected = rng.normal(size=(3, 1000))
    noise = rng.normal(size=(3, 1000))
    verify.require_close(expected, expected + 0.009 * noise, "X")
    for wrong in (expected + 0.011 * noise, np.full_like(expected, np.nan)):
        with pytest.raises(UserError, match="X moves the logits by"):
            verify.require_close(expected, wrong, "X")
