"""Windows by their definition: pixel i of an axis is in window floor((i - shift) / side)."""

import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.ops.windows import Windows

CASES = [
    # height, width, window, shift
    (8, 8, 4, 0),
    (8, 12, 4, 2),
    (56, 56, 7, 3),
    (10, 9, 4, 2),  # filled up to 12
    (5, 16, 7, 3),  # one window of 5 rows
    (7, 7, 7, 3),  # one window, so no shift
    (1, 1, 7, 3),
]


def coordinates(height, width):
    """`[1, H, W, 3]`: row, column and a 1 that padding lacks."""
    grid = np.stack(np.mgrid[:height, :width], axis=-1)
    return jnp.float32(np.concatenate([grid, np.ones((height, width, 1))], axis=-1)[None])


@pytest.mark.parametrize("case", CASES)
def test_join_is_the_inverse_of_cut(rng, case):
    height, width, window, shift = case
    windows = Windows.of(height, width, window=window, shift=shift)
    x = jnp.float32(rng.normal(size=(2, height, width, 3)))
    cut = windows.cut(x)
    assert cut.shape[2] == min(window, height) * min(window, width)
    assert cut.shape[1] == -(-height // window) * -(-width // window)
    np.testing.assert_array_equal(windows.join(cut), x)


@pytest.mark.parametrize("case", CASES)
def test_who_sees_whom(case):
    """Two pixels of the map if and only if their windows are the same; nobody sees padding."""
    height, width, window, shift = case
    windows = Windows.of(height, width, window=window, shift=shift)
    row, column, real = np.moveaxis(np.asarray(windows.cut(coordinates(height, width)))[0], -1, 0)
    mask = windows.mask()
    if mask is None:
        mask = np.ones((*real.shape, real.shape[-1]), bool)
    assert mask.dtype == bool
    assert mask.any(axis=-1).all()
    both = (real[:, :, None] * real[:, None, :]).astype(bool)
    assert not mask[real[:, :, None] != real[:, None, :]].any()

    seen = np.zeros((height, width, height, width), bool)
    place, query, key = np.nonzero(mask & both)
    ends = [np.int64(axis[place, end]) for end in (query, key) for axis in (row, column)]
    seen[tuple(ends)] = True

    def number(length):
        return (np.arange(length) - (shift if length > window else 0)) // window

    rows, columns = number(height), number(width)
    same_row = (rows[:, None] == rows)[:, None, :, None]
    same_column = (columns[:, None] == columns)[None, :, None, :]
    np.testing.assert_array_equal(seen, same_row & same_column)


def test_whole_windows_in_place_need_no_mask():
    assert Windows.of(14, 21, window=7, shift=0).mask() is None
    assert Windows.of(14, 21, window=7, shift=3).mask().shape == (6, 49, 49)
    assert Windows.of(14, 20, window=7, shift=0).mask().shape == (6, 49, 49)


@pytest.mark.parametrize(("height", "width"), [(14, 14), (3, 5)])
def test_relative_positions(height, width):
    """A row of the 13 x 13 table for each offset of rows, its middle for pixels alike."""
    windows = Windows.of(height, width, window=7, shift=0)
    positions = windows.relative_positions(7)
    rows, columns = min(7, height), min(7, width)
    assert positions.shape == (rows * columns,) * 2
    table = np.arange(13 * 13).reshape(13, 13)
    for query in range(rows * columns):
        for key in range(rows * columns):
            down = query // columns - key // columns
            right = query % columns - key % columns
            assert positions[query, key] == table[6 + down, 6 + right]
