"""What the routes to phones share: the twin they start from, and the comparison at their end."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from pnet_jax.convert import verify
from pnet_jax.convert.source import Source
from pnet_jax.convert.state_dict import to_torch
from pnet_jax.convert.torch_model import DynamicConv
from pnet_jax.convert.twin import load_twin, verify_twin


def open_twin(source: Source, form: str) -> nn.Module:
    """The network in PyTorch; the routers' temperature is a part of their last layers.

    Raises:
      UserError: if there is no such network in PyTorch.
    """
    twin: nn.Module = load_twin(source, to_torch(source.model, source.variables), form)
    for module in twin.modules():
        if isinstance(module, DynamicConv) and module.routing_kind != "sigmoid_linear":
            *_, last = module.routing.modules()
            for parameter in last.parameters():
                parameter.data /= source.temperature
    return twin


def compare(
    source: Source, twin: nn.Module, run: Callable[[np.ndarray], np.ndarray], what: str
) -> list[verify.Difference]:
    """Compares the twin with the Flax network layer by layer, then the logits of the file itself.

    Args:
      source: the checkpoint.
      twin: what the file was made from.
      run: from one normalised image `[S, S, 3]` to logits, through one session for all images.
      what: names the file.

    Raises:
      UserError: if the logits of either differ.
    """
    found, expected = verify_twin(source, twin)
    images = verify.sample_images(source.preprocessing.image_size)
    floats = verify.normalized(images, source.preprocessing)
    logits = np.stack([run(image) for image in floats])
    of_file = verify.differences({verify.LOGITS: expected}, {verify.LOGITS: logits})
    verify.require_equal(of_file, verify.EXACT, what)
    return [*found[:-1], *of_file]


def said_of(source: Source, format_name: str, found: list[verify.Difference]) -> dict[str, Any]:
    """For `conversion.json`."""
    verified = verify.report(found) if found else None
    return source.describe() | {"format": format_name, "verified": verified}
