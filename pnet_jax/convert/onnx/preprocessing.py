"""Preprocessing inside of the graph: the pixels of an image file's central square go in."""

import numpy as np
import onnx

from pnet_jax.convert.onnx.graph import Graph
from pnet_jax.convert.source import Preprocessing


def normalized(graph: Graph, images: str, preprocessing: Preprocessing) -> str:
    """`[N, S, S, 3]` uint8 to the floats `[N, 3, S, S]` that the network takes."""
    # Bytes are moved before they are made four times as large.
    x = graph.add("Transpose", images, perm=[0, 3, 1, 2])
    x = graph.add("Cast", x, to=onnx.TensorProto.FLOAT)
    mean, std = (
        np.array(values, np.float32).reshape(1, 3, 1, 1)
        for values in (preprocessing.mean, preprocessing.std)
    )
    x = graph.add("Sub", x, graph.constant(mean, "preprocessing/mean"))
    return graph.add("Div", x, graph.constant(std, "preprocessing/std"))
