"""A checkpoint as an ONNX model: the network's graph for one image, and for any number of them."""

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from flax import traverse_util
from onnx import helper, numpy_helper

from pnet_jax import __version__
from pnet_jax.convert.onnx import efficientnet, ghostnet, resnet, swin
from pnet_jax.convert.onnx.graph import IR_VERSION, OPSET, Graph, Map
from pnet_jax.convert.onnx.layers import Layers
from pnet_jax.convert.onnx.preprocessing import normalized
from pnet_jax.convert.onnx.storage import other_type
from pnet_jax.convert.source import Source
from pnet_jax.models.efficientnet import EfficientNet
from pnet_jax.models.ghostnet import GhostNet
from pnet_jax.models.resnet import ResNet
from pnet_jax.models.swin import Swin

INPUT, LOGITS = "images", "logits"
ANY = "N"

_NETWORKS: dict[type, Callable[[Layers, Any, Map], str]] = {
    EfficientNet: efficientnet.emit,
    GhostNet: ghostnet.emit,
    ResNet: resnet.emit,
    Swin: swin.emit,
}

Batch = int | str


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user may choose of a file."""

    batch: Batch = ANY
    fold_bn: bool = True
    experts: str = "fp32"
    with_preprocessing: bool = False
    calibrate: int = 0  # images that the ranges of int8 are taken from; 0 computes in float32


def build(source: Source, options: Options) -> onnx.ModelProto:
    """The model of a checkpoint; its input is `images`, its output `logits` `[N, classes]`.

    `images` are `[N, 3, S, S]` float32, or with preprocessing `[N, S, S, 3]` uint8.
    """
    graph, logits = _network(source, options, INPUT)
    graph.copy(logits, LOGITS)
    proto = graph.proto(source.model, [_images(source, options, 1)], [_logits(source, 1)])
    return _model(source, options, with_batch(source, options, proto))


def with_batch(source: Source, options: Options, graph: onnx.GraphProto) -> onnx.GraphProto:
    """The graph for one image as one for `options.batch` images."""
    if options.batch == 1:
        return graph
    inputs, outputs = [_images(source, options, options.batch)], [_logits(source, options.batch)]
    if getattr(source.network, "num_experts", None) is None:
        nodes = graph.node  # of static networks: none depends on the batch
        return helper.make_graph(nodes, graph.name, inputs, outputs, graph.initializer)
    scan = _scan(graph)
    return helper.make_graph([scan], graph.name, inputs, outputs)


def build_with_taps(source: Source) -> tuple[onnx.ModelProto, dict[str, np.ndarray | None]]:
    """The model for one image, exact, that also gives what its modules give.

    Returns:
      The model, whose outputs have the names of the modules' paths, and for each the layout of its
      channels.
    """
    options = Options(batch=1)
    graph, logits = _network(source, options, INPUT)
    graph.copy(logits, LOGITS)
    outputs, layouts = [_logits(source, 1)], {}
    for path, (tensor, layout) in graph.taps.items():
        graph.copy(tensor, path)
        outputs.append(helper.make_tensor_value_info(path, onnx.TensorProto.FLOAT, None))
        layouts[path] = layout
    proto = graph.proto(source.model, [_images(source, options, 1)], outputs)
    return _model(source, options, proto), layouts


def _network(source: Source, options: Options, images: str) -> tuple[Graph, str]:
    """The graph behind the tensor `images`, and the name of the logits in it."""
    network = source.network
    variables = source.variables
    graph = Graph()
    layers = Layers(
        graph,
        traverse_util.flatten_dict(variables["params"]),
        traverse_util.flatten_dict(variables["batch_stats"]),
        routing=getattr(network, "routing", ""),
        temperature=source.temperature,
        fold_bn=options.fold_bn,
        experts=options.experts,
        others="fp32" if options.calibrate else other_type(options.experts),
        # Static networks run in blocks of 8 channels throughout; where kernels are mixed, every
        # channel more costs a matrix product's time.
        multiple=8 if getattr(network, "num_experts", None) is None else 4,
    )
    size = source.preprocessing.image_size
    if options.with_preprocessing:
        images = normalized(graph, images, source.preprocessing)
    emit = _NETWORKS[type(network)]
    return graph, emit(layers, network, Map(images, np.arange(3), size, size))


def _scan(graph: onnx.GraphProto) -> onnx.NodeProto:
    """A Scan over the images, as no ONNX operator convolves each image with a kernel of its own.

    The weights are constants inside of its body: ONNX Runtime prepares them on loading there, and
    would copy what came in from outside for each image.
    """
    # The body sees an image and a row of logits without their batch dimension, and must not use the
    # names of the graph around it.
    inner = {INPUT: "image_as_batch", LOGITS: "row_as_batch"}
    nodes = [copy.deepcopy(node) for node in graph.node]
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = [inner.get(name, name) for name in names]
    declared, shapes = [], []
    for outside, inside in ((graph.input[0], "image"), (graph.output[0], "row")):
        tensor = outside.type.tensor_type
        shape = [dimension.dim_value for dimension in tensor.shape.dim]
        kept = shape if inside == "image" else shape[1:]
        shapes.append(numpy_helper.from_array(np.array(kept, np.int64), f"shape_of_{inside}"))
        declared.append(helper.make_tensor_value_info(inside, tensor.elem_type, shape[1:]))
    before = helper.make_node("Reshape", ["image", shapes[0].name], [inner[INPUT]])
    after = helper.make_node("Reshape", [inner[LOGITS], shapes[1].name], ["row"])
    body = helper.make_graph(
        [before, *nodes, after],
        f"{graph.name}_of_one_image",
        declared[:1],
        declared[1:],
        [*graph.initializer, *shapes],
    )
    return helper.make_node("Scan", [INPUT], [LOGITS], "each_image", body=body, num_scan_inputs=1)


def _images(source: Source, options: Options, batch: Batch) -> onnx.ValueInfoProto:
    size = source.preprocessing.image_size
    if options.with_preprocessing:
        return helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, [batch, size, size, 3])
    return helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, [batch, 3, size, size])


def _logits(source: Source, batch: Batch) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(
        LOGITS, onnx.TensorProto.FLOAT, [batch, source.num_classes]
    )


def _model(source: Source, options: Options, graph: onnx.GraphProto) -> onnx.ModelProto:
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="pnet_jax",
        producer_version=__version__,
    )
    said = source.describe() | {"options": dataclasses.asdict(options)}
    texts = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in said.items()
        if value is not None
    }
    helper.set_model_props(model, texts)
    return model
