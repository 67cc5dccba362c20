"""`convert to-onnx`: from a run's work directory to a checked ONNX file."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import onnx

from pnet_jax.convert import verify
from pnet_jax.convert.files import replace_whole
from pnet_jax.convert.onnx.graph import OPSET
from pnet_jax.convert.onnx.model import ANY, INPUT, LOGITS, Options, build, build_with_taps
from pnet_jax.convert.onnx.session import open_session
from pnet_jax.convert.record import write_record
from pnet_jax.convert.source import Source, open_source
from pnet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Exported:
    """What `export_onnx` wrote, and by how many standard deviations its logits differ at most."""

    path: pathlib.Path
    source: Source
    size_bytes: int
    difference: float | None
    layers: int


def export_onnx(
    workdir: pathlib.Path,
    out: pathlib.Path,
    options: Options,
    *,
    step: int | None = None,
    weights: str = "ema",
    verified: bool = True,
) -> Exported:
    """Writes a checkpoint as an ONNX file, once it computes what the Flax network does.

    Args:
      workdir: of the run.
      out: ends in `.onnx`; `conversion.json` is written beside it.
      options: of the file.
      step: of the checkpoint; None takes the best one.
      weights: "ema", the averages that evaluation uses, or "raw".
      verified: compares each layer and the logits with the Flax network's, on several images.

    Raises:
      UserError: if there is no such run, checkpoint or file type, or the two networks differ.
    """
    if out.suffix != ".onnx":
        raise UserError(f"{out.name} must end in .onnx.")
    source = open_source(workdir, step=step, weights=weights)
    return write_onnx(source, out, options, verified=verified)


def write_onnx(
    source: Source, out: pathlib.Path, options: Options, *, verified: bool = True
) -> Exported:
    """As `export_onnx`, of a checkpoint that is open already."""
    model = build(source, options)
    onnx.checker.check_model(model, full_check=True)
    found = _verify(source, model, options) if verified else []
    content = model.SerializeToString()
    replace_whole(out, lambda target: target.write_bytes(content))
    said: dict[str, Any] = {
        "format": f"ONNX, opset {OPSET}",
        "options": dataclasses.asdict(options),
        "verified": verify.report(found) if found else None,
    }
    write_record(out, source.describe() | said)
    difference = found[-1].value if found else None
    return Exported(out, source, len(content), difference, len(found))


def _verify(source: Source, model: onnx.ModelProto, options: Options) -> list[verify.Difference]:
    """Layer by layer with exact weights, then the logits of the file itself."""
    images = verify.sample_images(source.preprocessing.image_size)
    floats = verify.normalized(images, source.preprocessing)
    tapped, layouts = build_with_taps(source)
    expected = verify.reference(source, floats, layouts)
    channels_first = floats.transpose(0, 3, 1, 2)
    session = open_session(tapped)
    outputs = [session.run([*layouts, LOGITS], {INPUT: image[None]}) for image in channels_first]
    whole = [np.concatenate(parts) for parts in zip(*outputs, strict=True)]
    actual = dict(zip([*layouts, LOGITS], whole, strict=True))
    for layer, layout in layouts.items():
        if layout is not None:  # a map, channels first, in an order of its own
            order = np.argsort(layout, kind="stable")[np.count_nonzero(layout < 0) :]
            actual[layer] = actual[layer][:, order].transpose(0, 2, 3, 1)
    found = verify.differences(expected, actual)
    verify.require_equal(found, verify.EXACT, "The ONNX graph")
    pixels = images if options.with_preprocessing else channels_first
    logits = _logits(open_session(model), pixels, options)
    what = f"The ONNX file with {options.experts} experts"
    if options.experts != "fp32":
        verify.require_close(expected[LOGITS], logits, what)
    of_file = verify.differences({LOGITS: expected[LOGITS]}, {LOGITS: logits})
    if options.experts == "fp32":
        verify.require_equal(of_file, verify.EXACT, what)
    return [*found[:-1], *of_file]


def _logits(session: Any, images: np.ndarray, options: Options) -> np.ndarray:
    """Of all images, in batches of the file's size."""
    size = len(images) if options.batch == ANY else int(options.batch)
    rows = []
    for start in range(0, len(images), size):
        batch = np.take(images, range(start, start + size), axis=0, mode="wrap")
        rows.append(session.run([LOGITS], {INPUT: batch})[0])
    return np.concatenate(rows)[: len(images)]
