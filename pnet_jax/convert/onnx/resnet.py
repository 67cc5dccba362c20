"""ResNet as an ONNX graph: the walk of `models/resnet.py` over nodes."""

from flax import linen as nn

from pnet_jax.convert.onnx.graph import Map
from pnet_jax.convert.onnx.layers import Act, Layers, Path
from pnet_jax.models.resnet import ResNet


def emit(layers: Layers, model: ResNet, images: Map) -> str:
    """Adds the network; returns the name of its logits `[N, classes]`."""
    graph = layers.graph
    x = layers.conv(images, ("conv1",), batch_norm=("bn1",), act=nn.relu, strides=2)
    pooled = graph.add("MaxPool", x.name, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    x = Map(pooled, x.layout, (x.height + 1) // 2, (x.width + 1) // 2)
    for stage, blocks in enumerate(model.stages):
        for index in range(blocks):
            strides = 2 if stage > 0 and index == 0 else 1
            x = _bottleneck(layers, x, (f"layer{stage + 1}_{index}",), strides)
    return layers.dense(layers.mean(x), ("classifier",), x.layout)


def _bottleneck(layers: Layers, x: Map, path: Path, strides: int) -> Map:
    def conv(x: Map, name: str, bn: str, act: Act = None, strides: int = 1) -> Map:
        return layers.conv(x, (*path, name), batch_norm=(*path, bn), act=act, strides=strides)

    y = conv(x, "conv1", "bn1", nn.relu)
    y = conv(y, "conv2", "bn2", nn.relu, strides)
    y = conv(y, "conv3", "bn3")
    if (*path, "downsample_conv", "kernel") in layers.params:
        x = conv(x, "downsample_conv", "downsample_bn", strides=strides)
    layers.graph.taps["/".join((*path, "bn3"))] = y.name, y.layout
    total = y.at(layers.act(layers.graph.add("Add", y.name, x.name), nn.relu))
    layers.graph.taps["/".join(path)] = total.name, total.layout
    return total
