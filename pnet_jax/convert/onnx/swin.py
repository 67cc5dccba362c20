"""Swin Transformer as an ONNX graph: the walk of `models/swin.py` over nodes.

Maps are `[N, H, W, C]` here, as layer norm and linear layers want them.
"""

import math

import numpy as np

from pnet_jax.convert.layouts import to_torch_layout
from pnet_jax.convert.onnx.graph import Map
from pnet_jax.convert.onnx.layers import Layers, Path
from pnet_jax.convert.onnx.storage import experts_type, store
from pnet_jax.models.swin import PATCH, WINDOW, Swin
from pnet_jax.ops.windows import Windows


def emit(layers: Layers, model: Swin, images: Map) -> str:
    """Adds the network; returns the name of its logits `[N, classes]`."""
    walk = _Walk(layers, images)
    x = walk.norm(walk.embed(images), ("patch_embed", "norm"))
    for stage, depth in enumerate(model.depths):
        if stage > 0:
            x = walk.merge(x, (f"layers_{stage}_downsample",))
        for index in range(depth):
            shift = index % 2 * (WINDOW // 2)
            x = walk.block(
                x, (f"layers_{stage}_blocks_{index}",), model.num_heads * 2**stage, shift
            )
    mean = layers.graph.add("ReduceMean", walk.norm(x, ("norm",)), axes=[1, 2], keepdims=0)
    return layers.dense(mean, ("head",))


class _Walk:
    """Keeps the size of the map that is being walked along."""

    def __init__(self, layers: Layers, images: Map) -> None:
        self.layers, self.graph = layers, layers.graph
        self.height, self.width, self.channels = images.height, images.width, 3

    def embed(self, images: Map) -> str:
        graph, params = self.graph, self.layers.params
        kernel = params["patch_embed", "proj", "kernel"]
        bottom, right = -self.height % PATCH, -self.width % PATCH
        inputs = [
            images.name,
            graph.constant(to_torch_layout(("kernel",), kernel), "patch_embed/proj/w"),
            graph.constant(params["patch_embed", "proj", "bias"], "patch_embed/proj/b"),
        ]
        size = [PATCH] * 2
        x = graph.add("Conv", *inputs, kernel_shape=size, strides=size, pads=[0, 0, bottom, right])
        self.height, self.width = (self.height + bottom) // PATCH, (self.width + right) // PATCH
        self.channels = kernel.shape[-1]
        return graph.add("Transpose", x, perm=[0, 2, 3, 1])

    def norm(self, x: str, path: Path) -> str:
        name, params = "/".join(path), self.layers.params
        scale = self.graph.constant(params[*path, "scale"], f"{name}/scale")
        bias = self.graph.constant(params[*path, "bias"], f"{name}/b")
        return self.graph.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-5)

    def linear(self, x: str, path: Path) -> str:
        """`[N, H, W, I]` to `[N, H, W, O]`, dynamic if it has experts."""
        graph, layers, name = self.graph, self.layers, "/".join(path)
        if (*path, "experts") in layers.params:
            experts = layers.params[*path, "experts"]
            inputs, features = experts.shape[-2:]
            mean = graph.add("ReduceMean", x, axes=[1, 2], keepdims=0)
            coefficients = layers.router(mean, (*path, "routing"), np.arange(inputs))
            rows, as_type = experts[:, 0, 0], experts_type(layers.experts, experts.size)
            stored = store(graph, rows, f"{name}/experts", as_type, axes=(1,))
            mixed = graph.add("MatMul", coefficients, graph.reshape(stored, [len(rows), -1]))
            weight = graph.reshape(mixed, [inputs, features])
        else:
            kernel = layers.params[*path, "kernel"]
            features = kernel.shape[-1]
            weight = store(graph, kernel, f"{name}/w", layers.others, axes=(0,))
        self.channels = features
        y = graph.add("MatMul", x, weight)
        if (*path, "bias") in layers.params:
            y = graph.add("Add", y, graph.constant(layers.params[*path, "bias"], f"{name}/b"))
        return y

    def block(self, x: str, path: Path, num_heads: int, shift: int) -> str:
        graph = self.graph
        y = self.attention(self.norm(x, (*path, "norm1")), (*path, "attn"), num_heads, shift)
        x = graph.add("Add", x, y)
        y = self.linear(self.norm(x, (*path, "norm2")), (*path, "mlp", "fc1"))
        y = self.linear(self._gelu(y), (*path, "mlp", "fc2"))
        y = graph.add("Add", x, y)
        graph.taps["/".join(path)] = y, None
        return y

    def _gelu(self, x: str) -> str:
        """By the error function, in the form that ONNX Runtime fuses."""
        graph = self.graph
        root, one, half = (
            graph.constant(np.array(number, np.float32), f"float_{number:.3g}")
            for number in (math.sqrt(2), 1, 0.5)
        )
        y = graph.add("Add", graph.add("Erf", graph.add("Div", x, root)), one)
        return graph.add("Mul", graph.add("Mul", x, y), half)

    def attention(self, x: str, path: Path, num_heads: int, shift: int) -> str:
        graph, channels = self.graph, self.channels
        windows = Windows.of(self.height, self.width, window=WINDOW, shift=shift)
        number = windows.rows.number * windows.columns.number
        pixels = windows.rows.window * windows.columns.window
        each = channels // num_heads
        qkv = self._cut(self.linear(x, (*path, "qkv")), windows, 3 * channels)
        qkv = graph.reshape(qkv, [-1, pixels, 3, num_heads, each])
        parts = graph.add_many(
            "Split", graph.add("Transpose", qkv, perm=[2, 0, 3, 1, 4]), number=3, axis=0
        )
        query, key, value = (graph.reshape(p, [-1, num_heads, pixels, each]) for p in parts)
        scale = graph.constant(np.array(each**-0.5, np.float32), f"float_{each**-0.5:.9g}")
        query = graph.add("Mul", query, scale)
        scores = graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 1, 3, 2]))
        table = self.layers.params[*path, "relative_position_bias_table"]
        bias = table[:, windows.relative_positions(WINDOW)]
        mask = windows.mask()
        name = "/".join(path)
        if mask is None:
            scores = graph.add("Add", scores, graph.constant(bias, f"{name}/bias"))
        else:
            # Far below every score: infinity would make a product of it not a number.
            hidden = np.where(mask[:, None], bias, np.float32(-1e9))
            scores = graph.reshape(scores, [-1, number, num_heads, pixels, pixels])
            scores = graph.add("Add", scores, graph.constant(hidden, f"{name}/bias"))
            scores = graph.reshape(scores, [-1, num_heads, pixels, pixels])
        y = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)
        y = graph.add("Transpose", y, perm=[0, 2, 1, 3])
        y = self._join(y, windows, channels)
        return self.linear(y, (*path, "proj"))

    def _cut(self, x: str, windows: Windows, channels: int) -> str:
        """As `Windows.cut`, to `[N windows, pixels, channels]`."""
        rows, columns = windows
        missing = [0, 0, 0, 0, 0, rows.padded - rows.length, columns.padded - columns.length, 0]
        if any(missing):
            x = self.graph.add("Pad", x, self.graph.constant(missing, f"pads_{missing}"))
        x = self._roll(x, rows.shift, columns.shift)
        shape = [-1, rows.number, rows.window, columns.number, columns.window, channels]
        x = self.graph.add("Transpose", self.graph.reshape(x, shape), perm=[0, 1, 3, 2, 4, 5])
        return self.graph.reshape(x, [-1, rows.window * columns.window, channels])

    def _join(self, x: str, windows: Windows, channels: int) -> str:
        """The inverse of `_cut`, to `[N, H, W, channels]`."""
        rows, columns = windows
        shape = [-1, rows.number, columns.number, rows.window, columns.window, channels]
        x = self.graph.add("Transpose", self.graph.reshape(x, shape), perm=[0, 1, 3, 2, 4, 5])
        x = self.graph.reshape(x, [-1, rows.padded, columns.padded, channels])
        back = -rows.shift % rows.padded, -columns.shift % columns.padded
        x = self._roll(x, *back)
        for axis, one in ((1, rows), (2, columns)):
            if one.padded > one.length:
                x = self._slice(x, axis, 0, one.length)
        return x

    def _roll(self, x: str, down: int, right: int) -> str:
        """What is beyond the first `down` rows and `right` columns comes first."""
        for axis, by in ((1, down), (2, right)):
            if by:
                parts = self._slice(x, axis, by, 2**31), self._slice(x, axis, 0, by)
                x = self.graph.add("Concat", *parts, axis=axis)
        return x

    def _slice(self, x: str, axis: int, start: int, end: int) -> str:
        ends = (self.graph.constant([v], f"int_{v}") for v in (start, end, axis))
        return self.graph.add("Slice", x, *ends)

    def merge(self, x: str, path: Path) -> str:
        graph, channels = self.graph, self.channels
        bottom, right = -self.height % 2, -self.width % 2
        if bottom or right:
            pads = [0, 0, 0, 0, 0, bottom, right, 0]
            x = graph.add("Pad", x, graph.constant(pads, f"pads_{pads}"))
        self.height, self.width = (self.height + bottom) // 2, (self.width + right) // 2
        x = graph.reshape(x, [-1, self.height, 2, self.width, 2, channels])
        x = graph.add("Transpose", x, perm=[0, 1, 3, 4, 2, 5])
        x = graph.reshape(x, [-1, self.height, self.width, 4 * channels])
        return self.linear(self.norm(x, (*path, "norm")), (*path, "reduction"))
