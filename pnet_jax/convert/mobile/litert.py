"""`convert to-litert`: from a run's work directory to a checked `.tflite` file."""

import contextlib
import pathlib
import sys
import warnings
from typing import Any

import litert_torch
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import Tensor, nn

from pnet_jax.convert.files import replace_whole
from pnet_jax.convert.mobile.export import compare, open_twin, said_of
from pnet_jax.convert.mobile.folded import fold_norms
from pnet_jax.convert.record import Exported, write_record
from pnet_jax.convert.source import Source
from pnet_jax.errors import UserError

INPUT, LOGITS = "images", "logits"


def write_litert(source: Source, out: pathlib.Path, *, verified: bool = True) -> Exported:
    """Writes a checkpoint as a LiteRT file, once it computes what the Flax network does.

    The file takes one normalised image, `images` `[1, S, S, 3]` float32, and gives `logits`.

    Args:
      source: the checkpoint.
      out: ends in `.tflite`; `conversion.json` is written beside it.
      verified: compares layers and logits with the Flax network's, on several images.

    Raises:
      UserError: if `out` has another ending, or the networks differ.
    """
    if out.suffix != ".tflite":
        raise UserError(f"{out.name} must end in .tflite.")
    twin = fold_norms(open_twin(source, "matmul"))
    content = convert(twin, source.preprocessing.image_size)
    found = []
    if verified:
        runner = open_interpreter(content).get_signature_runner()
        run = lambda image: runner(**{INPUT: image[None]})[LOGITS][0]  # noqa: E731
        found = compare(source, twin, run, "The LiteRT file")
    replace_whole(out, lambda target: target.write_bytes(content))
    write_record(out, said_of(source, "LiteRT", found))
    difference = found[-1].value if found else None
    return Exported(out, source, len(content), difference, len(found))


class _ChannelsLast(nn.Module):
    """Takes images as LiteRT's users have them, and names what it gives."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {LOGITS: self.network(images.permute(0, 3, 1, 2))}


def convert(network: nn.Module, image_size: int) -> bytes:
    """The content of a file for one image at a time; tells its progress on standard error."""
    images = torch.zeros(1, image_size, image_size, 3)
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")  # of PyTorch's export, about its own future
        model: Any = litert_torch.convert(
            _ChannelsLast(network).eval(), sample_kwargs={INPUT: images}
        )
    return bytes(model.model_content())


def open_interpreter(content: bytes, *, threads: int = 1) -> Interpreter:
    """LiteRT on the CPU, with XNNPACK for all operators that it has."""
    return Interpreter(model_content=content, num_threads=threads)
