"""GhostNet and ParameterNet as an ONNX graph: the walk of `models/ghostnet.py` over nodes."""

import dataclasses
from typing import Any

import numpy as np
from flax import linen as nn

from pnet_jax.convert.onnx.graph import Map, padded, shifted
from pnet_jax.convert.onnx.layers import Act, Layers, Path
from pnet_jax.models.ghostnet import GhostNet, Row, batch_norm_of
from pnet_jax.models.layers import make_divisible


def emit(layers: Layers, model: GhostNet, images: Map) -> str:
    """Adds the network; returns the name of its logits `[N, classes]`."""
    walk = _Walk(layers, model.act)
    stem = walk.ghost_layout(make_divisible(16 * model.width))
    x = walk.conv_bn(images, (), "conv_stem", act=model.act, strides=2, layout=stem)
    for stage, rows in enumerate(model.stages):
        for index, row in enumerate(rows):
            x = walk.bottleneck(x, row, f"blocks_{stage}_{index}")
    x = walk.conv_bn(x, (), f"blocks_{len(model.stages)}_0_conv", act=model.act)
    features = layers.act(layers.dense(layers.mean(x), ("conv_head",), x.layout), model.act)
    return layers.dense(features, ("classifier",))


class _Walk:
    def __init__(self, layers: Layers, act: Act) -> None:
        self.layers, self.network_act = layers, act

    def ghost_layout(self, features: int) -> np.ndarray:
        """Of a ghost module's result, and of what is added to it."""
        half = padded(features // 2, self.layers.multiple)
        return np.append(half, shifted(half, features // 2))

    def conv_bn(self, x: Map, path: Path, name: str, act: Act = None, **options: Any) -> Map:
        bn = (*path, batch_norm_of(name))
        y = self.layers.conv(x, (*path, name), batch_norm=bn, act=act, **options)
        if act is None:  # else the norm's own result is not there to compare
            self.layers.graph.taps["/".join(bn)] = y.name, y.layout
        return y

    def ghost_module(self, x: Map, path: Path, act: Act) -> list[Map]:
        """The two parts of its channels."""
        first = self.conv_bn(x, path, "primary_conv", act)
        second = self.conv_bn(first, path, "cheap_conv", act, depthwise=True)
        layout = shifted(second.layout, int(np.count_nonzero(first.layout >= 0)))
        return [first, dataclasses.replace(second, layout=layout)]

    def bottleneck(self, x: Map, row: Row, name: str) -> Map:
        layers, path = self.layers, (name,)
        parts = self.ghost_module(x, (*path, "ghost1"), self.network_act)
        if row.strides > 1:
            # Before the parts are copied together, as there is less to copy after it.
            strided: dict[str, Any] = {
                "batch_norm": (*path, "bn_dw"),
                "strides": row.strides,
                "depthwise": True,
            }
            parts = [layers.conv(part, (*path, "conv_dw"), **strided) for part in parts]
        y = layers.concat(parts)
        if row.se_ratio > 0:
            y = layers.squeeze_excite(y, (*path, "se"), self.network_act, nn.hard_sigmoid)
        y = layers.concat(self.ghost_module(y, (*path, "ghost2"), None))
        # Padded, different numbers of channels may look the same.
        if (*path, "shortcut_dw_bn", "scale") in layers.params:
            x = self.conv_bn(x, path, "shortcut_dw", strides=row.strides, depthwise=True)
            x = self.conv_bn(x, path, "shortcut_pw", layout=y.layout)
        y = y.at(layers.graph.add("Add", x.name, y.name))
        layers.graph.taps[name] = y.name, y.layout
        return y
