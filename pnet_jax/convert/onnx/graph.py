"""A graph of ONNX nodes as it grows: names, constants, and the marks that verification reads."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# Fixed: every runtime of the last years reads both. Opset 17 is the first with LayerNormalization.
OPSET = 17
IR_VERSION = 8


@dataclasses.dataclass(frozen=True)
class Map:
    """A feature map `[N, channels, height, width]`, by the name of its tensor.

    `layout` says which of the network's channels stands at each place; -1 is one more, all zeros.
    """

    name: str
    layout: np.ndarray
    height: int
    width: int

    @property
    def channels(self) -> int:
        return len(self.layout)

    def at(self, name: str) -> "Map":
        """Another tensor of the same shape."""
        return dataclasses.replace(self, name=name)


def padded(channels: int, multiple: int) -> np.ndarray:
    """The layout of so many channels with zeros after them, up to a multiple."""
    return np.append(np.arange(channels), np.full(-channels % multiple, -1))


def shifted(layout: np.ndarray, channels: int) -> np.ndarray:
    """The layout of channels that stand after so many others in the network."""
    return np.where(layout < 0, -1, layout + channels)


def spread(array: np.ndarray, layout: np.ndarray, axis: int) -> np.ndarray:
    """An array by channel in a layout, with zeros where there is no channel."""
    there = np.expand_dims(layout >= 0, [a for a in range(array.ndim) if a != axis % array.ndim])
    return np.take(array, np.maximum(layout, 0), axis) * there.astype(array.dtype)


class Graph:
    """Nodes in the order they are added, and the constants that they read.

    `taps` are the tensors to compare with the network's own, by the path of the module that gives
    it, each with the layout of its channels if it is one `[N, C, H, W]`.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.taps: dict[str, tuple[str, np.ndarray | None]] = {}
        self._numbers = itertools.count()

    def add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output, and returns that output's name."""
        return self.add_many(op_type, *inputs, number=1, **attributes)[0]

    def add_many(self, op_type: str, *inputs: str, number: int, **attributes: Any) -> list[str]:
        """Adds a node with so many outputs, and returns their names."""
        name = f"{op_type}_{next(self._numbers)}"
        outputs = [name, *(f"{name}_{place}" for place in range(1, number))]
        self.nodes.append(helper.make_node(op_type, list(inputs), outputs, name, **attributes))
        return outputs

    def constant(self, array: np.ndarray | Sequence[int], name: str) -> str:
        """A constant in its own dtype, sequences as int64; the same one is stored once.

        Raises ValueError if the name stands for something else already.
        """
        array = np.asarray(array, None if isinstance(array, np.ndarray) else np.int64)
        constant = numpy_helper.from_array(np.ascontiguousarray(array), name)
        there = self.constants.setdefault(name, constant)
        if there is not constant and there != constant:
            raise ValueError(f"there are two constants called {name}")
        return name

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """0 in the shape keeps a length, -1 is what is left."""
        return self.add("Reshape", x, self.constant(shape, f"shape_{'_'.join(map(str, shape))}"))

    def copy(self, x: str, name: str) -> None:
        """The same tensor once more, under a name of its own: an output of the graph, say."""
        self.nodes.append(helper.make_node("Identity", [x], [name], name))

    def proto(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> onnx.GraphProto:
        """The finished graph."""
        return helper.make_graph(self.nodes, name, inputs, outputs, [*self.constants.values()])
