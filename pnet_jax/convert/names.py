"""The PyTorch name and layout of a leaf of the Flax tree.

The names are those of the published ParameterNet code and of timm's GhostNet. One direction is
enough: reading a foreign file asks, for each leaf of our own tree, which tensor it wants.
"""

import re
from collections.abc import Collection

import numpy as np

_LAYERS = (
    (r"\.primary_conv(?=\.)", ".primary_conv.0"),
    (r"\.primary_bn(?=\.)", ".primary_conv.1"),
    (r"\.cheap_conv(?=\.)", ".cheap_operation.0"),
    (r"\.cheap_bn(?=\.)", ".cheap_operation.1"),
    (r"\.shortcut_dw(?=\.)", ".shortcut.0"),
    (r"\.shortcut_dw_bn(?=\.)", ".shortcut.1"),
    (r"\.shortcut_pw(?=\.)", ".shortcut.2"),
    (r"\.shortcut_pw_bn(?=\.)", ".shortcut.3"),
    (r"^blocks_(\d+)_(\d+)_(conv|bn1)(?=\.)", r"blocks.\1.\2.\3"),
    (r"^blocks_(\d+)_(\d+)(?=\.)", r"blocks.\1.\2"),
    (r"(?<=\.routing)\.hidden(?=\.)", ".0"),
    (r"\.experts$", ".cond_conv.weight"),
    (r"\.(kernel|scale)$", ".weight"),
    (r"\.(mean|var)$", r".running_\1"),
)


def torch_name(path: tuple[str, ...], paths: Collection[tuple[str, ...]]) -> str:
    """The published name of the leaf at `path`, one of all `paths`.

    A path is a tuple such as `("params", "conv_stem", "experts")`.
    """
    name = ".".join(path[1:])
    # A router of two layers is a Sequential with the activation at place 1, a router of one layer
    # is just it.
    two_layers = (*path[:-2], "hidden", "kernel") in paths
    name = re.sub(r"(?<=\.routing)\.out(?=\.)", ".2" if two_layers else "", name)
    for pattern, theirs in _LAYERS:
        name = re.sub(pattern, theirs, name)
    return name


def to_torch_layout(path: tuple[str, ...], array: np.ndarray) -> np.ndarray:
    """Experts `[K, kh, kw, I, O]` to `[K, O I kh kw]`, kernels `[kh, kw, I, O]` to
    `[O, I, kh, kw]`, dense kernels transposed.
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
