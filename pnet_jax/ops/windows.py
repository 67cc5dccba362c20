"""Cutting a feature map into the (shifted) windows of Swin's attention (arXiv 2103.14030).

A shifted window starts `shift` pixels later in both directions. What sticks out at the start of
the map shares a window with what sticks out at its end, so that shifting adds no window; a mask
keeps the two apart, and the pixels that fill up the last windows out.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class _Axis(NamedTuple):
    """One direction of the map, in pixels."""

    length: int
    window: int
    shift: int

    @classmethod
    def of(cls, length: int, window: int, shift: int) -> "_Axis":
        # A map no longer than a window is a window, and there is nothing to shift.
        return cls(length, length, 0) if length <= window else cls(length, window, shift)

    @property
    def number(self) -> int:
        return -(-self.length // self.window)

    @property
    def padded(self) -> int:
        return self.number * self.window

    def parts(self) -> np.ndarray:
        """Of each shifted position: 0, or 1 if from the start of the map, or 2 if padding."""
        origin = (np.arange(self.padded) + self.shift) % self.padded
        return np.where(origin >= self.length, 2, np.where(origin < self.shift, 1, 0))


class Windows(NamedTuple):
    """How a map of one size is cut; made by `Windows.of`."""

    rows: _Axis
    columns: _Axis

    @classmethod
    def of(cls, height: int, width: int, *, window: int, shift: int) -> "Windows":
        """Windows of `window` pixels a side, or of the map's side where that is shorter."""
        return cls(_Axis.of(height, window, shift), _Axis.of(width, window, shift))

    def cut(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C]` to `[N, windows, pixels, C]`, pixels row by row."""
        (rows, columns), channels = self, x.shape[-1]
        missing = (rows.padded - rows.length, columns.padded - columns.length)
        x = jnp.pad(x, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))
        x = jnp.roll(x, (-rows.shift, -columns.shift), axis=(1, 2))
        x = x.reshape(-1, rows.number, rows.window, columns.number, columns.window, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(x.shape[0], rows.number * columns.number, -1, channels)

    def join(self, x: jax.Array) -> jax.Array:
        """The inverse of `cut`."""
        (rows, columns), channels = self, x.shape[-1]
        x = x.reshape(-1, rows.number, columns.number, rows.window, columns.window, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, rows.padded, columns.padded, channels)
        x = jnp.roll(x, (rows.shift, columns.shift), axis=(1, 2))
        return x[:, : rows.length, : columns.length]

    def mask(self) -> np.ndarray | None:
        """`[windows, pixels, pixels]`, True where two pixels may see each other; None if always.

        Padding sees padding, so that no row is all False.
        """
        parts = 3 * self.rows.parts()[:, None] + self.columns.parts()
        if not parts.any():
            return None
        rows, columns = self
        parts = parts.reshape(rows.number, rows.window, columns.number, columns.window)
        parts = parts.transpose(0, 2, 1, 3).reshape(rows.number * columns.number, -1)
        return parts[:, :, None] == parts[:, None, :]

    def relative_positions(self, largest: int) -> np.ndarray:
        """`[pixels, pixels]` int: where the pair (query, key) stands in a table of all offsets.

        The table has the `2 largest - 1` offsets of rows, and for each those of columns.
        """
        return _relative_positions(self.rows.window, self.columns.window, largest)


@functools.cache
def _relative_positions(rows: int, columns: int, largest: int) -> np.ndarray:
    row, column = np.divmod(np.arange(rows * columns), columns)
    down = row[:, None] - row + largest - 1
    right = column[:, None] - column + largest - 1
    return down * (2 * largest - 1) + right
