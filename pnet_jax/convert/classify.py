"""A classifier from a file of any format that this project writes, behind one face."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from pnet_jax.convert.files import read_description, read_weights
from pnet_jax.convert.record import read_records
from pnet_jax.convert.source import Preprocessing, Source, open_source
from pnet_jax.convert.state_dict import from_torch
from pnet_jax.convert.verify import normalized
from pnet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A network with what is to be known around it.

    `logits_of` takes `[N, S, S, 3]` uint8 pixels and returns `[N, num_classes]` float32.
    """

    preprocessing: Preprocessing
    num_classes: int
    classes: list[str] | None
    logits_of: Callable[[np.ndarray], np.ndarray]


def open_classifier(path: pathlib.Path) -> Classifier:
    """Opens a run's work directory, an `.onnx` file, or a `.safetensors` or `.pth` file.

    Raises:
      UserError: if there is none, it is damaged, or it does not say how images are prepared.
    """
    if path.is_dir():
        return of_source(open_source(path, step=None, weights="ema"))
    if path.suffix == ".onnx":
        return _of_onnx(path)
    return _of_weights(path)


def of_source(source: Source) -> Classifier:
    """The Flax network of a checkpoint."""
    network, variables = source.network, source.variables
    forward = jax.jit(
        lambda images: network.apply(variables, images, temperature=source.temperature)
    )

    def logits_of(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(forward(normalized(pixels, source.preprocessing)))

    return Classifier(source.preprocessing, source.num_classes, source.classes, logits_of)


def _of_weights(path: pathlib.Path) -> Classifier:
    """A PyTorch file is computed by the Flax network: no PyTorch needed."""
    tensors = read_weights(path)
    said = read_description(path) or read_records(path.parent).get(path.name)
    if said is None:
        raise UserError(
            f"{path} does not say which network it belongs to; keep the conversion.json that "
            f"to-torch wrote beside it, or start from the weights by from-torch."
        )
    try:
        name, fields = said["model"], dict(said["fields"])
        source = Source(
            workdir=path.parent,
            model=name,
            fields=fields,
            step=said["step"],
            weights=said["weights"],
            variables=from_torch(name, tensors, **fields),
            fingerprint=said["config_fingerprint"],
            classes=said["classes"],
            preprocessing=Preprocessing.of(said["preprocessing"]),
            temperature=said["temperature"],
        )
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"What is said of {path} is not what to-torch writes ({error}); convert it again."
        ) from error
    return of_source(source)


def _of_onnx(path: pathlib.Path) -> Classifier:
    try:
        from pnet_jax.convert.onnx.session import described, open_session
    except ImportError as error:
        raise UserError(
            f"{path} needs onnxruntime, which is not installed: pip install 'pnet_jax[torch]'."
        ) from error
    session = open_session(path)
    said: Mapping[str, Any] = described(session)
    if "preprocessing" not in said:
        raise UserError(f"{path} does not say how images are prepared; export it by to-onnx.")
    preprocessing = Preprocessing.of(said["preprocessing"])
    (images,) = session.get_inputs()

    def logits_of(pixels: np.ndarray) -> np.ndarray:
        batch = pixels
        if images.type != "tensor(uint8)":
            batch = normalized(pixels, preprocessing).transpose(0, 3, 1, 2)
        size = images.shape[0] if isinstance(images.shape[0], int) else len(batch)
        rows = []
        for start in range(0, len(batch), size):
            part = np.take(batch, range(start, start + size), axis=0, mode="wrap")
            rows.append(session.run(None, {images.name: part})[0])
        return np.concatenate(rows)[: len(batch)]

    return Classifier(preprocessing, int(said["num_classes"]), said.get("classes"), logits_of)
