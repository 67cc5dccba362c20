"""The layout of a leaf of the Flax tree in PyTorch: channels first, matrices transposed."""

import numpy as np


def to_torch_layout(path: tuple[str, ...], array: np.ndarray) -> np.ndarray:
    """Experts `[K, kh, kw, I, O]` to `[K, O I kh kw]`, kernels `[kh, kw, I, O]` to
    `[O, I, kh, kw]`, dense kernels and tables of position biases transposed.
    """
    if path[-1] == "experts":
        return array.transpose(0, 4, 3, 1, 2).reshape(array.shape[0], -1)
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def from_torch_layout(
    path: tuple[str, ...], array: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """The inverse of `to_torch_layout`; `shape` is the Flax shape."""
    if path[-1] == "experts":
        count, kh, kw, inputs, features = shape
        return array.reshape(count, features, inputs, kh, kw).transpose(0, 3, 4, 2, 1)
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def torch_shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a leaf of Flax `shape` has in PyTorch."""
    return to_torch_layout(path, np.broadcast_to(np.zeros(()), shape)).shape
