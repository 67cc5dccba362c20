"""A checkpoint as an ONNX model: the network's graph for one image, and for any number of them."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from flax import traverse_util
from onnx import helper

from pnet_jax import __version__
from pnet_jax.convert.onnx import efficientnet, ghostnet, resnet, swin
from pnet_jax.convert.onnx.graph import IR_VERSION, OPSET, Graph, Map
from pnet_jax.convert.onnx.layers import Layers
from pnet_jax.convert.onnx.preprocessing import normalized
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


def build(source: Source, options: Options) -> onnx.ModelProto:
    """The model of a checkpoint; its input is `images`, its output `logits` `[N, classes]`.

    `images` are `[N, 3, S, S]` float32, or with preprocessing `[N, S, S, 3]` uint8.
    """
    dynamic = getattr(source.network, "num_experts", None) is not None
    if dynamic and options.batch != 1:
        return _model(source, options, _scan(source, options))
    graph, logits = _network(source, options, INPUT)
    graph.copy(logits, LOGITS)
    outputs = [_logits(source, options.batch)]
    proto = graph.proto(source.model, [_images(source, options, options.batch)], outputs)
    return _model(source, options, proto)


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
        # Static networks run in blocks of 8 channels throughout; where kernels are mixed, every
        # channel more costs a matrix product's time.
        multiple=8 if getattr(network, "num_experts", None) is None else 4,
    )
    size = source.preprocessing.image_size
    if options.with_preprocessing:
        images = normalized(graph, images, source.preprocessing)
    emit = _NETWORKS[type(network)]
    return graph, emit(layers, network, Map(images, np.arange(3), size, size))


def _scan(source: Source, options: Options) -> onnx.GraphProto:
    """A Scan over the images, as no ONNX operator convolves each image with a kernel of its own.

    The weights are constants inside of its body: ONNX Runtime prepares them on loading there, and
    would copy what came in from outside for each image.
    """
    declared = _images(source, options, 1).type.tensor_type
    shape = [dimension.dim_value for dimension in declared.shape.dim]
    body, logits = _network(source, options, "image_as_batch")
    # The body sees an image and a row of logits without their batch dimension.
    body.copy(body.reshape(logits, [-1]), "row")
    shape_name = body.constant(shape, "shape_of_batch")
    body.nodes.insert(0, helper.make_node("Reshape", ["image", shape_name], ["image_as_batch"]))
    of_one = body.proto(
        f"{source.model}_of_one_image",
        [helper.make_tensor_value_info("image", declared.elem_type, shape[1:])],
        [helper.make_tensor_value_info("row", onnx.TensorProto.FLOAT, [source.num_classes])],
    )
    scan = helper.make_node("Scan", [INPUT], [LOGITS], "each_image", body=of_one, num_scan_inputs=1)
    inputs, outputs = _images(source, options, options.batch), _logits(source, options.batch)
    return helper.make_graph([scan], source.model, [inputs], [outputs])


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
