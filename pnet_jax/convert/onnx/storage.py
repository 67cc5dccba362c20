"""Weights that take less room in the file: rounded, and made float32 again on loading.

Runtimes compute what depends on constants alone once, when they load the file; inference then
costs what it costs with float32.
"""

import numpy as np
import onnx

from pnet_jax.convert.onnx.graph import Graph

EXPERT_TYPES = ("fp32", "fp16", "int8")

# A tensor below this many numbers is not worth a scale of its own.
_SMALL = 4096
# Layers with fewer numbers in their experts are little of the file and a good part of the error.
_MANY = 2**18


def store(
    graph: Graph, array: np.ndarray, name: str, as_type: str, *, axes: tuple[int, ...] = ()
) -> str:
    """A float32 constant, stored as "fp32", "fp16", "int16" or "int8"; returns its tensor's name.

    Integers are `round(x / scale)` with the largest number of what `axes` run over at the end of
    the range: one scale for each output channel, if they run over the others.
    """
    if as_type == "fp32" or array.size < _SMALL:
        return graph.constant(array.astype(np.float32), name)
    if as_type == "fp16":
        return graph.add(
            "Cast", graph.constant(array.astype(np.float16), name), to=onnx.TensorProto.FLOAT
        )
    dtype = np.dtype(as_type)
    scale = np.abs(array).max(axis=axes, keepdims=True) / np.iinfo(dtype).max
    # Of a channel of zeros any scale will do.
    scale = np.where(scale == 0, 1, scale).astype(np.float32)
    stored = graph.constant(np.round(array / scale).astype(dtype), name)
    wide = graph.add("Cast", stored, to=onnx.TensorProto.FLOAT)
    return graph.add("Mul", wide, graph.constant(scale, f"{name}/scale"))


def experts_type(experts: str, size: int) -> str:
    """How a layer's experts of so many numbers are stored in a file with experts of that type."""
    return "int16" if experts == "int8" and size < _MANY else experts


def other_type(experts: str) -> str:
    """How the weights that are no experts are stored beside experts of that type."""
    return "fp32" if experts == "fp32" else "int16"
