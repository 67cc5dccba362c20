"""Parallel branches merged into the one convolution that computes the same in evaluation."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from pnet_jax.models.ghostnet import batch_norm_of
from pnet_jax.models.layers import BatchNorm

# The network with branches, and the one that it is without.
MERGES_INTO = {"ghostnet_300m_reparam": "ghostnet_300m"}

_SUFFIX = "_branches"
_Path = tuple[str, ...]
_Flat = dict[_Path, np.ndarray]


def merge_branches(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of the plain network with the logits that these have in evaluation.

    A batch norm scales and shifts channels, so that each branch is a convolution with a bias, and
    the sum of convolutions is one with the sum of their kernels (arXiv 2101.03697, section 3.3).
    The merged bias lies in the batch norm that the plain network has, which is left without any
    other effect.
    """
    flat = {
        path: np.asarray(leaf, np.float64)
        for path, leaf in traverse_util.flatten_dict(dict(variables)).items()
    }
    merged = {path: leaf for path, leaf in flat.items() if not _branches_in(path)}
    for path in {_branches_in(path) for path in flat} - {()}:
        conv = (*path[:-1], path[-1].removesuffix(_SUFFIX))
        norm = (*path[:-1], batch_norm_of(conv[-1]))
        plain = flat["params", *conv, "kernel"]
        factor, bias = _factor(flat, norm), _bias(flat, norm)
        kernel = plain * factor
        for branch in {key[len(path) + 1] for key in flat if _branches_in(key) == path}:
            if not branch.startswith("bn_"):
                continue
            place = branch.removeprefix("bn_")
            if place == "identity":
                one = _identity(plain.shape)
            else:
                one = _centred(flat["params", *path, f"conv_{place}", "kernel"], plain.shape)
            kernel = kernel + one * _factor(flat, (*path, branch))
            bias = bias + _bias(flat, (*path, branch))
        merged["params", *conv, "kernel"] = kernel
        merged["params", *norm, "scale"] = np.full_like(bias, np.sqrt(1 + BatchNorm.epsilon))
        merged["params", *norm, "bias"] = bias
        merged["batch_stats", *norm, "mean"] = np.zeros_like(bias)
        merged["batch_stats", *norm, "var"] = np.ones_like(bias)
    return traverse_util.unflatten_dict(
        {path: leaf.astype(np.float32) for path, leaf in merged.items()}
    )


def _branches_in(path: _Path) -> _Path:
    """The path (without the collection) of the branches that a leaf belongs to, or ()."""
    for place, name in enumerate(path):
        if name.endswith(_SUFFIX):
            return path[1 : place + 1]
    return ()


def _factor(flat: _Flat, norm: _Path) -> np.ndarray:
    """What a batch norm multiplies each channel by."""
    variance = flat["batch_stats", *norm, "var"]
    return flat["params", *norm, "scale"] / np.sqrt(variance + BatchNorm.epsilon)


def _bias(flat: _Flat, norm: _Path) -> np.ndarray:
    """What a batch norm adds to each channel."""
    mean = flat["batch_stats", *norm, "mean"]
    return flat["params", *norm, "bias"] - mean * _factor(flat, norm)


def _centred(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A kernel with zeros around it up to `shape`."""
    around = [((full - size) // 2,) * 2 for full, size in zip(shape, kernel.shape, strict=True)]
    return np.pad(kernel, around)


def _identity(shape: tuple[int, ...]) -> np.ndarray:
    """The kernel `[kh, kw, I / groups, O]` that returns its input."""
    kernel = np.zeros(shape)
    inputs, features = shape[2:]
    channels = np.arange(features)
    kernel[shape[0] // 2, shape[1] // 2, channels % inputs, channels] = 1
    return kernel
