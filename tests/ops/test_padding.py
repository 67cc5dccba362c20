"""Padding for all sides and for each, and TensorFlow's SAME."""

import pytest

from pnet_jax.ops.padding import same_padding, sides


def test_sides():
    assert sides(2) == ((2, 2), (2, 2))
    assert sides(((0, 1), (2, 3))) == ((0, 1), (2, 3))


@pytest.mark.parametrize(
    ("size", "kernel_size", "strides", "expected"),
    [
        ((224, 224), 3, 2, ((0, 1), (0, 1))),
        ((224, 7), 3, 2, ((0, 1), (1, 1))),
        ((7, 8), 3, 1, ((1, 1), (1, 1))),
        ((56, 57), 5, 2, ((1, 2), (2, 2))),
        ((8, 9), 1, 2, ((0, 0), (0, 0))),
        ((1, 2), 5, 2, ((2, 2), (1, 2))),
    ],
)
def test_same_padding(size, kernel_size, strides, expected):
    """The odd zero at the bottom and right; no more than the last window needs."""
    assert same_padding(size, kernel_size, strides) == expected
    for length, (low, high) in zip(size, expected, strict=True):
        assert (length + low + high - kernel_size) // strides + 1 == -(-length // strides)
