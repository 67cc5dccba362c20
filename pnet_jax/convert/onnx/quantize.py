"""Static int8 (QDQ) by ONNX Runtime's quantiser: which layers, and what that costs in top-1."""

import copy
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from pnet_jax.convert.onnx.model import INPUT, Options, with_batch
from pnet_jax.convert.onnx.session import open_session
from pnet_jax.convert.pictures import Pictures
from pnet_jax.convert.source import Source
from pnet_jax.convert.verify import normalized
from pnet_jax.errors import UserError
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


def to_int8(
    source: Source,
    model: onnx.ModelProto,
    options: Options,
    *,
    calibration: Pictures,
    evaluation: Pictures,
    measured: bool,
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A model for one image in int8 and of `options.batch` images, and what to record of that.

    `measured` compares its top-1 accuracy on the images for evaluation with that in float32.

    Raises:
      UserError: if no image to calibrate with can be read.
    """

    def prepare(pixels: np.ndarray) -> np.ndarray:
        if options.with_preprocessing:
            return pixels
        return normalized(pixels, source.preprocessing).transpose(0, 3, 1, 2)

    quantized = quantize(model, _calibrating(calibration, prepare))
    said: dict[str, Any] = {
        "nodes": len(layers_of(model)),
        "calibration": {"split": calibration.name, "images": len(calibration)},
        "accuracy": None,
    }
    if measured:
        shares = accuracies({"fp32": model, "int8": quantized}, evaluation, prepare)
        said["accuracy"] = {
            "split": evaluation.name,
            "images": len(evaluation),
            **{f"{name}_top1": share for name, share in shares.items()},
        }
    graph = with_batch(source, options, quantized.graph)
    if graph is not quantized.graph:
        quantized.graph.CopyFrom(graph)
    return quantized, said


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
    del quantized.metadata_props[:]  # the quantiser's own
    quantized.metadata_props.extend(model.metadata_props)
    return quantized


def _calibrating(
    pictures: Pictures, prepare: Callable[[np.ndarray], np.ndarray]
) -> Iterator[np.ndarray]:
    readable = False
    with Progress(len(pictures), images_per_step=1, description="calibration") as progress:
        for done, (image, label) in enumerate(_images(pictures), start=1):
            if label >= 0:  # else it is corrupt, and black
                readable = True
                yield prepare(image)
            progress.update(done)
    if not readable:
        raise UserError(
            f"None of {len(pictures)} images of {pictures.name} can be read; take more."
        )


def accuracies(
    models: Mapping[str, onnx.ModelProto],
    pictures: Pictures,
    prepare: Callable[[np.ndarray], np.ndarray],
) -> dict[str, float]:
    """The top-1 accuracy in [0, 1] of each model for one image, which `prepare` makes of pixels.

    No answer fits an image that is corrupt, as in evaluation.
    """
    sessions = {name: open_session(model) for name, model in models.items()}
    right = dict.fromkeys(models, 0)
    with Progress(len(pictures), images_per_step=1, description="accuracy") as progress:
        for done, (image, label) in enumerate(_images(pictures), start=1):
            given = {INPUT: prepare(image)}
            for name, session in sessions.items():
                right[name] += int(session.run(None, given)[0].argmax() == label)
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
