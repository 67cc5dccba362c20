"""`convert to-onnx`: from a run's work directory to a checked ONNX file."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from pnet_jax.convert import verify
from pnet_jax.convert.files import replace_whole
from pnet_jax.convert.onnx.graph import OPSET
from pnet_jax.convert.onnx.model import ANY, INPUT, LOGITS, Options, build, build_with_taps
from pnet_jax.convert.onnx.quantize import to_int8
from pnet_jax.convert.onnx.session import open_session
from pnet_jax.convert.pictures import open_pictures
from pnet_jax.convert.record import Exported, write_record
from pnet_jax.convert.source import Source, open_source
from pnet_jax.errors import UserError
from pnet_jax.report.progress import Progress


def export_onnx(
    workdir: pathlib.Path,
    out: pathlib.Path,
    options: Options,
    *,
    step: int | None = None,
    weights: str = "ema",
    verified: bool = True,
    data_dir: str | None = None,
) -> Exported:
    """Writes a checkpoint as an ONNX file, once it computes what the Flax network does.

    Args:
      workdir: of the run.
      out: ends in `.onnx`; `conversion.json` is written beside it.
      options: of the file.
      step: of the checkpoint; None takes the best one.
      weights: "ema", the averages that evaluation uses, or "raw".
      verified: compares each layer and the logits with the Flax network's, on several images, and
        the accuracy in int8 with that in float32, on the run's evaluation split.
      data_dir: where the run's data set lies, if it has moved; for int8 only.

    Raises:
      UserError: if there is no such run, checkpoint, file type or data set, or the two networks
        differ.
    """
    if out.suffix != ".onnx":
        raise UserError(f"{out.name} must end in .onnx.")
    source = open_source(workdir, step=step, weights=weights)
    return write_onnx(source, out, options, verified=verified, data_dir=data_dir)


def write_onnx(
    source: Source,
    out: pathlib.Path,
    options: Options,
    *,
    verified: bool = True,
    data_dir: str | None = None,
) -> Exported:
    """As `export_onnx`, of a checkpoint that is open already."""
    images = {}
    if options.calibrate:  # before all that takes long: the data set may not be there
        train, evaluation = (
            open_pictures(source, split, data_dir=data_dir) for split in ("train", "eval")
        )
        images = {"calibration": train.spread(options.calibrate), "evaluation": evaluation}
    # Ranges of int8 are taken from the graph for one image.
    first = dataclasses.replace(options, batch=1) if options.calibrate else options
    stages = ["graph", "check", "Flax network", "layers", "file"][: 5 if verified else 2]
    with Progress(len(stages), images_per_step=None, description="to-onnx") as progress:

        def tell(stage: str) -> None:
            progress.update(stages.index(stage) + 1, doing=stage)

        tell("graph")
        model = build(source, first)
        tell("check")
        onnx.checker.check_model(model, full_check=True)
        found = _verify(source, model, first, tell) if verified else []
    int8 = None
    if options.calibrate:
        model, int8 = to_int8(source, model, options, **images, measured=verified)
        onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    replace_whole(out, lambda target: target.write_bytes(content))
    said: dict[str, Any] = {
        "format": f"ONNX, opset {OPSET}",
        "options": dataclasses.asdict(options),
        "verified": verify.report(found) if found else None,
        "int8": int8,
    }
    write_record(out, source.describe() | said)
    difference = found[-1].value if found else None
    return Exported(out, source, len(content), difference, len(found), int8)


def _verify(
    source: Source, model: onnx.ModelProto, options: Options, tell: Callable[[str], None]
) -> list[verify.Difference]:
    """Layer by layer with exact weights, then the logits of the file itself.

    `tell` is told what comes next.
    """
    tell("Flax network")
    images = verify.sample_images(source.preprocessing.image_size)
    floats = verify.normalized(images, source.preprocessing)
    tapped, layouts = build_with_taps(source)
    expected = verify.reference(source, floats, layouts)
    tell("layers")
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
    tell("file")
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
