"""Static int8 (QDQ) by ONNX Runtime's quantiser: which layers, and what that costs in top-1."""

import copy
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from pnet_jax.convert.onnx.model import INPUT
from pnet_jax.convert.pictures import Pictures
from pnet_jax.report.progress import Progress

_WITH_WEIGHTS = ("Conv", "Gemm", "MatMul")
# Between quantised layers of static networks, so that maps stay int8.
_BETWEEN = ("Add", "Concat", "Mul")


def layers_of(model: onnx.ModelProto) -> list[str]:
    """The nodes to quantise: layers with constant weights, routers and mixing left out.

    Kernels that are mixed for each image would have to be rounded for each image, which costs more
    than int8 gains. Where all kernels are constant, sums, products and joins of maps are added.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in _WITH_WEIGHTS]
    chosen = [
        node.name
        for node in layers
        if node.input[1] in constants
        and "/routing/" not in node.input[1]
        and not node.input[1].endswith("/experts")
    ]
    if len(chosen) == len(layers):
        chosen += [node.name for node in model.graph.node if node.op_type in _BETWEEN]
    return chosen


def quantize(model: onnx.ModelProto, images: Iterable[np.ndarray]) -> onnx.ModelProto:
    """A model for one image with its layers in int8, between QuantizeLinear and DequantizeLinear.

    Args:
      model: float32, of batch 1; it stays as it is.
      images: each as the model takes it; the ranges of maps are the least and largest values that
        they have for these.
    """
    prepared = copy.deepcopy(model)  # the quantiser moves its weights out of it
    add_pre_process_metadata(prepared)  # which it would ask for: there is nothing to fold
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "int8.onnx"
        quantize_static(
            prepared,
            path,
            _Reader(images),
            op_types_to_quantize=[*_WITH_WEIGHTS, *_BETWEEN],
            nodes_to_quantize=layers_of(model),
            per_channel=True,
            # Seven bits of weights: processors without VNNI add pairs of products in 16 bits.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Logits stay as exact as they come, and so do the few numbers of gates.
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
        )
        quantized = onnx.load(path)
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(model.metadata_props)
    return quantized


def calibration_images(
    pictures: Pictures, prepare: Callable[[np.ndarray], np.ndarray]
) -> Iterator[np.ndarray]:
    """Each readable image of `pictures` as the model takes it, `prepare`d from `[1, S, S, 3]`."""
    with Progress(len(pictures), images_per_step=1, description="calibration") as progress:
        for done, (image, label) in enumerate(_images(pictures), start=1):
            if label >= 0:
                yield prepare(image)
            progress.update(done)


def accuracies(
    logits_of: dict[str, Callable[[np.ndarray], np.ndarray]],
    pictures: Pictures,
    prepare: Callable[[np.ndarray], np.ndarray],
) -> dict[str, float]:
    """The top-1 accuracy of each network in [0, 1]; no answer fits an image that is corrupt."""
    right = dict.fromkeys(logits_of, 0)
    with Progress(len(pictures), images_per_step=1, description="accuracy") as progress:
        for done, (image, label) in enumerate(_images(pictures), start=1):
            prepared = prepare(image)
            for name, logits in logits_of.items():
                right[name] += int(logits(prepared).argmax() == label)
            progress.update(done)
    return {name: count / len(pictures) for name, count in right.items()}


def _images(pictures: Pictures) -> Iterator[tuple[np.ndarray, int]]:
    """Images `[1, S, S, 3]` with their labels."""
    for batch in pictures.batches():
        for image, label, weight in zip(
            batch["image"], batch["label"], batch["weight"], strict=True
        ):
            if weight > 0:
                yield image[None], int(label)


class _Reader(CalibrationDataReader):
    """Images as the quantiser asks for them."""

    def __init__(self, images: Iterable[np.ndarray]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT: image}
