"""EfficientNet as an ONNX graph: the walk of `models/efficientnet.py` over nodes."""

import math

from flax import linen as nn

from pnet_jax.convert.onnx.graph import Map
from pnet_jax.convert.onnx.layers import Layers
from pnet_jax.models.efficientnet import EfficientNet, Row, chain


def emit(layers: Layers, model: EfficientNet, images: Map) -> str:
    """Adds the network; returns the name of its logits `[N, classes]`."""
    layers.padding, layers.epsilon = "same", 1e-3
    x = layers.conv(images, ("conv_stem",), batch_norm=("bn1",), act=model.act, strides=2)
    for stage, row in enumerate(model.stages):
        for index in range(math.ceil(row.blocks * model.depth)):
            here = row if index == 0 else row._replace(strides=1)
            x = _block(layers, model, x, here, f"blocks_{stage}_{index}")
    x = layers.conv(x, ("conv_head",), batch_norm=("bn2",), act=model.act)
    return layers.dense(layers.mean(x), ("classifier",), x.layout)


def _block(layers: Layers, model: EfficientNet, x: Map, row: Row, name: str) -> Map:
    inputs = int((x.layout >= 0).sum())
    features = model.channels(row.features)
    steps, y = chain(row, inputs, features), x
    for place, step in enumerate(steps, start=1):
        last = place == len(steps)
        if last and row.se_ratio > 0:
            y = layers.squeeze_excite(y, (name, "se"), model.act, nn.sigmoid)
        y = layers.conv(
            y,
            (name, step.name),
            batch_norm=(name, f"bn{place}"),
            act=None if last and row.kind != "conv" else model.act,
            strides=step.strides,
            depthwise=step.groups > 1,
        )
    if row.strides == 1 and inputs == features:
        y = y.at(layers.graph.add("Add", x.name, y.name))
    layers.graph.taps[name] = y.name, y.layout
    return y
