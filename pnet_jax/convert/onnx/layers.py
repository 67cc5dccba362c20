"""The layers that networks share, as ONNX nodes, in the forms that ONNX Runtime's CPU runs fastest.

docs/deploy.md has the measurements behind each choice.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from pnet_jax.convert.layouts import to_torch_layout
from pnet_jax.convert.onnx.graph import Graph, Map, padded, spread
from pnet_jax.convert.onnx.storage import experts_type, store
from pnet_jax.models.layers import BatchNorm
from pnet_jax.ops.padding import same_padding

Path = tuple[str, ...]
Act = Callable[[jax.Array], jax.Array] | None

# ONNX Runtime has fast depthwise kernels for constant weights only. Up to this many pixels, or with
# 5 x 5 kernels, one constant convolution an expert is faster than one with the mixed kernel.
_STATIC_EXPERTS_PIXELS = 14 * 14


_ACTIVATIONS: dict[Any, str] = {nn.relu: "Relu", nn.hard_swish: "HardSwish", nn.sigmoid: "Sigmoid"}


@dataclasses.dataclass
class Layers:
    """Adds layers to a graph, with the weights of the modules at the given paths."""

    graph: Graph
    params: Mapping[Path, np.ndarray]
    batch_stats: Mapping[Path, np.ndarray]
    routing: str = ""
    temperature: float = 1.0
    fold_bn: bool = True
    experts: str = "fp32"
    # How all other weights are stored.
    others: str = "fp32"
    epsilon: float = BatchNorm.epsilon
    padding: str = "symmetric"
    # Channels are filled up with zeros to multiples of this: others keep ONNX Runtime from its
    # blocked kernels.
    multiple: int = 4

    def __post_init__(self) -> None:
        # `[N, C]` means over the pixels of maps, which several layers may ask for.
        self._means: dict[str, str] = {}
        # What a map's channels were copied together from.
        self._parts: dict[str, Sequence[Map]] = {}

    def conv(
        self,
        x: Map,
        path: Path,
        *,
        batch_norm: Path | None = None,
        act: Act = None,
        strides: int = 1,
        depthwise: bool = False,
        layout: np.ndarray | None = None,
    ) -> Map:
        """A convolution, dynamic if it has experts, with its batch norm and activation.

        `layout` is that of the result, if not the input's or the plain one.
        """
        factor, bias = self._scale_and_shift(path, batch_norm)
        dynamic = (*path, "experts") in self.params
        kernel = self.params[*path, "experts" if dynamic else "kernel"]
        *_, size, _, _, features = kernel.shape
        if layout is None:
            layout = x.layout if depthwise else padded(features, self.multiple)
        if not depthwise:
            kernel = spread(kernel, x.layout, axis=-2)
        kernel = spread(kernel * factor, layout, axis=-1)
        bias = None if bias is None else spread(bias, layout, axis=0)
        pads, height, width = self._pads(x, size, strides)
        y = Map("", layout, height, width)
        attributes: dict[str, Any] = {
            "kernel_shape": [size] * 2,
            "strides": [strides] * 2,
            "pads": pads,
            "group": x.channels if depthwise else 1,
        }
        name = _name(path, layout if depthwise else None)
        if not dynamic:
            array = to_torch_layout((*path, "kernel"), kernel)
            others = "fp32" if depthwise else self.others
            weight = store(self.graph, array, f"{name}/w", others, axes=(1, 2, 3))
            inputs = [x.name, weight, *self._bias(bias, name)]
            y = y.at(self.graph.add("Conv", *inputs, **attributes))
        else:
            coefficients = self.router(self.mean(x), (*path, "routing"), x.layout)
            if depthwise and (size > 3 or height * width <= _STATIC_EXPERTS_PIXELS):
                y = y.at(self._static_experts(x, coefficients, kernel, bias, name, attributes))
            else:
                experts = self._experts(kernel, name)
                mixed = self.graph.add("MatMul", coefficients, experts)
                weight = self.graph.reshape(mixed, [y.channels, -1, size, size])
                inputs = [x.name, weight, *self._bias(bias, name)]
                y = y.at(self.graph.add("Conv", *inputs, **attributes))
        if batch_norm is not None and not self.fold_bn:
            y = self._batch_norm(y, batch_norm)
        return y.at(self.act(y.name, act))

    def _experts(self, kernel: np.ndarray, name: str) -> str:
        """Experts `[K, kh, kw, I, O]` as the rows `[K, O I kh kw]` of the product that mixes."""
        rows, name = to_torch_layout((name, "experts"), kernel), f"{name}/experts"
        # Depthwise kernels are little of the file, and rounding hurts them most.
        if self.experts == "fp32" or kernel.shape[-2] == 1:
            return self.graph.constant(rows, name)
        by_channel = rows.reshape(len(kernel), kernel.shape[-1], -1)
        stored = store(
            self.graph, by_channel, name, experts_type(self.experts, rows.size), axes=(2,)
        )
        return self.graph.reshape(stored, [len(kernel), -1])

    def _static_experts(
        self,
        x: Map,
        coefficients: str,
        kernel: np.ndarray,
        bias: np.ndarray | None,
        name: str,
        attributes: dict[str, Any],
    ) -> str:
        """A depthwise convolution as the sum of the experts' own, each of its share of x.

        The weights are constant so; ONNX Runtime adds within the convolutions.
        """
        graph, count = self.graph, kernel.shape[0]
        shares = graph.add_many("Split", coefficients, number=count, axis=1)
        total = ""
        for place, share in enumerate(shares):
            weight = to_torch_layout((name, "kernel"), kernel[place])
            inputs = [graph.add("Mul", x.name, share), graph.constant(weight, f"{name}/w{place}")]
            inputs += self._bias(bias, name) if place == 0 else []
            y = graph.add("Conv", *inputs, **attributes)
            total = graph.add("Add", total, y) if total else y
        return total

    def router(self, mean: str, path: Path, layout: np.ndarray) -> str:
        """`[1, K]` coefficients of the experts from the mean of a map, as `models.dynamic.Router`.

        `layout` is that of the mean's channels.
        """
        graph, scale = self.graph, 1.0
        inputs: np.ndarray | None = layout
        if self.routing == "softmax_mlp":
            mean = graph.add("Relu", self.dense(mean, (*path, "hidden"), layout))
            inputs = None
        if self.routing != "sigmoid_linear":
            scale = 1.0 / self.temperature
        y = self.dense(mean, (*path, "out"), inputs, scale=scale)
        if self.routing == "sigmoid_linear":
            y = graph.add("Sigmoid", y)
        else:
            y = graph.add("Softmax", y, axis=-1)
        graph.taps["/".join(path)] = y, None
        return y

    def mean(self, x: Map) -> str:
        """`[N, C]` over the pixels; ReduceMean is twice as fast as GlobalAveragePool."""
        if x.name not in self._means:
            if x.name in self._parts and self._parts[x.name][0].name in self._means:
                means = [self.mean(part) for part in self._parts[x.name]]
                mean = self.graph.add("Concat", *means, axis=1)
            else:
                mean = self.graph.add("ReduceMean", x.name, axes=[2, 3], keepdims=0)
            self._means[x.name] = mean
        return self._means[x.name]

    def dense(
        self,
        x: str,
        path: Path,
        inputs: np.ndarray | None = None,
        *,
        outputs: np.ndarray | None = None,
        scale: float = 1.0,
    ) -> str:
        """`[N, I]` to `[N, O]`, in the layouts given; `scale` multiplies the result.

        A 1x1 convolution of a single pixel is one too.
        """
        name, kernel = "/".join(path), self.params[*path, "kernel"]
        kernel = kernel.reshape(kernel.shape[-2:]) * np.float32(scale)
        bias = self.params[*path, "bias"] * np.float32(scale)
        if inputs is not None:
            kernel = spread(kernel, inputs, axis=0)
        if outputs is not None:
            kernel, bias = spread(kernel, outputs, axis=1), spread(bias, outputs, axis=0)
        weight = store(self.graph, kernel, f"{name}/w", self.others, axes=(0,))
        return self.graph.add("Gemm", x, weight, self.graph.constant(bias, f"{name}/b"))

    def squeeze_excite(self, x: Map, path: Path, act: Act, gate: Act) -> Map:
        """As `models.layers.SqueezeExcite`; the mean of what it gives costs nothing more."""
        mean = self.mean(x)
        squeezed = self.act(self.dense(mean, (*path, "conv_reduce"), x.layout), act)
        gates = self.act(self.dense(squeezed, (*path, "conv_expand"), outputs=x.layout), gate)
        spread_out = self.graph.reshape(gates, [-1, x.channels, 1, 1])
        y = x.at(self.graph.add("Mul", x.name, spread_out))
        self._means[y.name] = self.graph.add("Mul", mean, gates)
        return y

    def act(self, x: str, act: Act) -> str:
        """One of the activations that this project's networks have."""
        graph = self.graph
        if act is None:
            return x
        if act is nn.relu6:
            ends = (graph.constant(np.array(end, np.float32), f"float_{end}") for end in (0, 6))
            return graph.add("Clip", x, *ends)
        if act is nn.silu:
            return graph.add("Mul", x, graph.add("Sigmoid", x))
        if act is nn.hard_sigmoid:
            return graph.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)
        return graph.add(_ACTIVATIONS[act], x)

    def concat(self, parts: Sequence[Map]) -> Map:
        """The channels of all parts."""
        name = self.graph.add("Concat", *(part.name for part in parts), axis=1)
        self._parts[name] = parts
        layout = np.concatenate([part.layout for part in parts])
        return Map(name, layout, parts[0].height, parts[0].width)

    def _scale_and_shift(
        self, path: Path, batch_norm: Path | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """What multiplies the kernel, by output channel, and what is added to the result."""
        bias = self.params.get((*path, "bias"))
        if batch_norm is None or not self.fold_bn:
            return np.ones(1, np.float32), bias
        # In float64: a sum of rounded folds would drift from layer to layer.
        variance = np.float64(self.batch_stats[*batch_norm, "var"])
        factor = self.params[*batch_norm, "scale"] / np.sqrt(variance + self.epsilon)
        mean = self.batch_stats[*batch_norm, "mean"] - (0.0 if bias is None else bias)
        shift = self.params[*batch_norm, "bias"] - mean * factor
        return factor.astype(np.float32), shift.astype(np.float32)

    def _bias(self, bias: np.ndarray | None, name: str) -> list[str]:
        return [] if bias is None else [self.graph.constant(bias, f"{name}/b")]

    def _batch_norm(self, x: Map, path: Path) -> Map:
        name = _name(path, x.layout)
        leaves = {leaf: self.params[*path, leaf] for leaf in ("scale", "bias")}
        leaves |= {leaf: self.batch_stats[*path, leaf] for leaf in ("mean", "var")}
        inputs = [
            self.graph.constant(spread(array, x.layout, axis=0), f"{name}/{leaf}")
            for leaf, array in leaves.items()
        ]
        return x.at(self.graph.add("BatchNormalization", x.name, *inputs, epsilon=self.epsilon))

    def _pads(self, x: Map, size: int, strides: int) -> tuple[list[int], int, int]:
        """ONNX's (top, left, bottom, right), and the height and width of the result."""
        if self.padding == "same":
            rows, columns = same_padding((x.height, x.width), size, strides)
        else:
            rows = columns = ((size - 1) // 2,) * 2
        pads = [rows[0], columns[0], rows[1], columns[1]]
        height = (x.height + sum(rows) - size) // strides + 1
        width = (x.width + sum(columns) - size) // strides + 1
        return pads, height, width


def _name(path: Path, layout: np.ndarray | None) -> str:
    """Of a module's constants; some of its channels are told from others by the first of them."""
    first = 0 if layout is None else int(layout[0])
    return "/".join(path) + (f"/{first}" if first else "")
