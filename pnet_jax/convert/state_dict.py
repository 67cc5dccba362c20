"""Flax variables to a PyTorch state dict and back, in numpy alone: no torch needed."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from pnet_jax.convert.layouts import from_torch_layout, to_torch_layout, torch_shape
from pnet_jax.convert.names import efficientnet, torch_name
from pnet_jax.errors import UserError
from pnet_jax.models import create_model, list_models

StateDict = dict[str, np.ndarray]

# What the networks' modules call their classifier.
_CLASSIFIERS = ("classifier", "head")


def to_torch(model_name: str, variables: Mapping[str, Any]) -> StateDict:
    """The published PyTorch names and layouts of a network's `params` and `batch_stats`.

    Every batch norm also gets PyTorch's `num_batches_tracked` (0: it only matters to momentum =
    None).

    Raises:
      UserError: for a model name that this project does not have.
    """
    if model_name not in list_models():
        raise UserError(
            f"There is no model {model_name!r} to convert; there are {', '.join(list_models())}."
        )
    flat = traverse_util.flatten_dict(dict(variables))
    state_dict: StateDict = {}
    for path, leaf in flat.items():
        name = torch_name(model_name, path, flat.keys())
        state_dict[name] = np.ascontiguousarray(to_torch_layout(path, np.asarray(leaf)))
        if path[-1] == "var":
            counter = name.removesuffix("running_var") + "num_batches_tracked"
            state_dict[counter] = np.zeros((), np.int64)
    return state_dict


def from_torch(
    model_name: str, state_dict: Mapping[str, np.ndarray], **overrides: Any
) -> dict[str, Any]:
    """Flax variables of `create_model(model_name, **overrides)` from a PyTorch state dict,
    strictly.

    `num_classes` is read off the classifier unless given. EfficientNet's weights may also have the
    names of the `efficientnet_pytorch` packages.

    Raises:
      UserError: if a tensor is missing, unexpected or of another shape; all are listed.
    """
    try:
        model = create_model(model_name, **_num_classes(model_name, state_dict) | overrides)
    except ValueError as error:
        raise UserError(str(error)) from error
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    flat = traverse_util.flatten_dict(shapes)
    wanted = [torch_name(model_name, path, flat.keys()) for path in flat]
    state_dict = efficientnet.to_timm(state_dict, wanted)
    remaining = {k for k in state_dict if not k.endswith(".num_batches_tracked")}
    problems, variables = [], {}
    for (path, leaf), name in zip(flat.items(), wanted, strict=True):
        expected = torch_shape(path, leaf.shape)
        if name not in state_dict:
            problems.append(f"missing: {name} {list(expected)}")
            continue
        remaining.discard(name)
        tensor = np.asarray(state_dict[name])
        if tensor.shape != expected:
            problems.append(
                f"wrong shape: {name} is {list(tensor.shape)}, {model_name} wants {list(expected)}"
            )
            continue
        array = from_torch_layout(path, tensor, leaf.shape)
        variables[path] = np.ascontiguousarray(array).astype(leaf.dtype)
    problems += [f"unexpected: {name}" for name in sorted(remaining)]
    if problems:
        listed = "\n  ".join(problems)
        raise UserError(
            f"The weights do not fit {model_name} ({len(problems)} differences; check the model "
            f"name, "
            f"routing, width and number of experts):\n  {listed}"
        )
    return {"batch_stats": {}} | traverse_util.unflatten_dict(variables)


def _num_classes(model_name: str, state_dict: Mapping[str, np.ndarray]) -> dict[str, int]:
    """`{"num_classes": ...}` by the classifier's bias, or nothing if it is not there."""
    if model_name not in list_models():
        return {}
    state_dict = efficientnet.to_timm(state_dict, ())
    for module in _CLASSIFIERS:
        bias = torch_name(model_name, ("params", module, "bias"), ())
        if bias in state_dict:
            return {"num_classes": len(state_dict[bias])}
    return {}
