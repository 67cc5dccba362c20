"""The PyTorch twin of a checkpoint: loaded strictly, and compared with the Flax network."""

from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from pnet_jax.convert import verify
from pnet_jax.convert.names import torch_name
from pnet_jax.convert.source import Source
from pnet_jax.convert.state_dict import StateDict
from pnet_jax.errors import UserError

# What the twin's networks may be given, of the fields of a Flax network.
_FIELDS = ("width", "num_experts", "routing", "routing_ratio", "drop_rate")


class Compared(NamedTuple):
    """What `verify_twin` found, the logits last, and the Flax network's logits for its images."""

    found: list[verify.Difference]
    logits: np.ndarray


def twin_arguments(source: Source) -> dict[str, Any]:
    """What the twin's `create_model` takes besides the name and the number of classes."""
    return {name: source.fields[name] for name in _FIELDS if name in source.fields}


def load_twin(source: Source, state_dict: StateDict, form: str = "matmul") -> Any:
    """The twin as a `torch.nn.Module` in evaluation mode, loaded strictly.

    Raises:
      UserError: if the twin has no such network.
    """
    import torch

    from pnet_jax.convert import torch_model

    try:
        twin = torch_model.create_model(
            source.model, num_classes=source.num_classes, form=form, **twin_arguments(source)
        ).eval()
    except ValueError as error:
        raise UserError(f"{source.model} has no PyTorch twin: {error}") from error
    twin.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in state_dict.items()})
    return twin


def verify_twin(source: Source, twin: Any) -> Compared:
    """Compares the twin with the Flax network, layer by layer, on `verify.sample_images`.

    Raises:
      UserError: if the logits differ.
    """
    import torch

    paths, given = _module_names(source), {}
    sigmoid = source.fields.get("routing") == "sigmoid_linear"

    def keep(path: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            if path.endswith("/routing"):
                output = output.sigmoid() if sigmoid else output.softmax(-1)
            given[path] = output.permute(0, 2, 3, 1) if output.ndim == 4 else output

        return hook

    hooks = [
        module.register_forward_hook(keep(paths[name]))
        for name, module in twin.named_modules()
        if name in paths
    ]
    images = verify.sample_images(source.preprocessing.image_size)
    floats = verify.normalized(images, source.preprocessing)
    with torch.inference_mode():
        logits = twin(torch.from_numpy(floats.transpose(0, 3, 1, 2).copy()))
    for hook in hooks:
        hook.remove()
    expected = verify.reference(source, floats, given)
    found = verify.differences(
        expected, {name: x.numpy() for name, x in (given | {verify.LOGITS: logits}).items()}
    )
    verify.require_equal(found, verify.EXACT, "The PyTorch twin")
    return Compared(found, expected[verify.LOGITS])


def _module_names(source: Source) -> dict[str, str]:
    """The twin's name of each router and each block, and its path in the Flax network."""
    flat = traverse_util.flatten_dict(source.variables["params"])
    leaves = [("params", *path) for path in flat]
    names = {}
    for path in leaves:
        if path[-3:] == ("routing", "out", "kernel"):
            module = torch_name(source.model, path, leaves).partition(".routing.")[0]
            names[f"{module}.routing"] = "/".join(path[1:-2])
        if path[1].startswith("blocks_") and path[1].count("_") == 2:
            names[path[1].replace("_", ".")] = path[1]
    return names
