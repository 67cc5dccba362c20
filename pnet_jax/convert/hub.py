"""`convert to-hub`: a folder as model hubs keep them, for timm and for people with PyTorch."""

import dataclasses
import importlib.util
import json
import pathlib
import shutil
from typing import Any

from pnet_jax.convert import verify
from pnet_jax.convert.files import DESCRIPTION, replace_whole, write_weights
from pnet_jax.convert.record import write_record
from pnet_jax.convert.source import Source, open_source
from pnet_jax.convert.state_dict import to_torch
from pnet_jax.convert.twin import load_twin, twin_arguments, verify_twin
from pnet_jax.errors import UserError

WEIGHTS, CONFIG, CARD, TWIN = "model.safetensors", "config.json", "README.md", "torch_model.py"
_TWIN_SOURCE = pathlib.Path(__file__).with_name(TWIN)


@dataclasses.dataclass(frozen=True)
class Exported:
    """The folder, and by how many standard deviations logits differ at most, if compared."""

    path: pathlib.Path
    source: Source
    difference: float | None


def export_hub(
    workdir: pathlib.Path, out: pathlib.Path, *, step: int | None = None, weights: str = "ema"
) -> Exported:
    """Writes weights, `config.json`, model card and the PyTorch twin's source file.

    With PyTorch installed the twin is compared with the Flax network first.

    Raises:
      UserError: if there is no such run or checkpoint, the twin does not have the network or
        differs, or the folder cannot be written.
    """
    source = open_source(workdir, step=step, weights=weights)
    if not source.model.startswith(("parameternet_", "ghostnet_")):
        raise UserError(
            f"{source.model} has no PyTorch twin to go with it; ParameterNet and GhostNet have. "
            f"to-torch writes its weights for timm's network."
        )
    state_dict = to_torch(source.model, source.variables)
    found = None
    if importlib.util.find_spec("torch") is not None:
        found = verify_twin(source, load_twin(source, state_dict)).found
    description = json.dumps(source.describe())
    write_weights(out / WEIGHTS, state_dict, {"format": "pt", DESCRIPTION: description})
    config = json.dumps(_config(source), indent=2, ensure_ascii=False) + "\n"
    replace_whole(out / CONFIG, lambda target: target.write_text(config))
    card = _card(source)
    replace_whole(out / CARD, lambda target: target.write_text(card))
    replace_whole(out / TWIN, lambda target: shutil.copyfile(_TWIN_SOURCE, target))
    verified = None if found is None else verify.report(found)
    write_record(out / WEIGHTS, source.describe() | {"verified": verified})
    return Exported(out, source, None if found is None else found[-1].value)


def _config(source: Source) -> dict[str, Any]:
    """In the layout that timm reads: mean and standard deviation of pixels in [0, 1]."""
    prepared, size = source.preprocessing, source.preprocessing.image_size
    config = {
        "architecture": source.model,
        "num_classes": source.num_classes,
        "num_features": 1280,
        "global_pool": "avg",
        "model_args": twin_arguments(source),
        "pretrained_cfg": {
            "tag": f"step_{source.step}",
            "custom_load": False,
            "input_size": [3, size, size],
            "fixed_input_size": False,
            "interpolation": "bilinear",
            "crop_pct": prepared.eval_crop,
            "crop_mode": "center",
            "mean": [value / 255 for value in prepared.mean],
            "std": [value / 255 for value in prepared.std],
            "num_classes": source.num_classes,
            "classifier": "classifier",
        },
    }
    return config if source.classes is None else config | {"label_names": source.classes}


def _card(source: Source) -> str:
    """The folder's README: what it is, how it is opened, how images are prepared."""
    prepared = source.preprocessing
    arguments = "".join(f", {key}={value!r}" for key, value in twin_arguments(source).items())
    paper = "ParameterNet (arXiv 2306.14525)"
    if source.model.startswith("ghostnet"):
        paper = "GhostNet (arXiv 1911.11907)"
    return f"""---
library_name: timm
tags: [image-classification, timm]
---
# {source.model}

{paper}, {source.num_classes:,} classes, trained with pnet_jax; {source.weights} weights of step
{source.step:,}, configuration {source.fingerprint}.

    import safetensors.torch
    from torch_model import create_model

    model = create_model("{source.model}", num_classes={source.num_classes}{arguments})
    model.load_state_dict(safetensors.torch.load_file("model.safetensors"))

or, with timm, `torch_model.register_with(timm)` and then

    timm.create_model("local-dir:FOLDER", pretrained=True)

Images: RGB, the central square with {prepared.eval_crop:g} of the shorter side, scaled to
{prepared.image_size} x {prepared.image_size} pixels; from values in [0, 255] subtract
{list(prepared.mean)}, divide by {list(prepared.std)}.
"""
