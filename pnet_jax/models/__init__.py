"""The networks by name: `create_model("parameternet_300m", num_classes=21841)`."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from pnet_jax.models import efficientnet, ghostnet, resnet, swin
from pnet_jax.models.dynamic import check_routing
from pnet_jax.models.initializers import from_one_draw, trace_init

# A module and the fields that make it the network of that name; each file adds its own.
_MODELS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    **efficientnet.MODELS,
    **ghostnet.MODELS,
    **resnet.MODELS,
    **swin.MODELS,
}
# What makes the network is not to be overridden.
_OWN_FIELDS = {"parent", "name", "stages", "stem_features", "act"}
_OWN_FIELDS |= {"embed_dim", "depths", "num_heads"}


def list_models() -> list[str]:
    """Every name that `create_model` knows, sorted."""
    return sorted(_MODELS)


def create_model(
    name: str, *, num_classes: int = 1000, dtype: Any = jnp.float32, **overrides: Any
) -> nn.Module:
    """A network by its name.

    Args:
      name: one of `list_models()`.
      num_classes: outputs of the classifier.
      dtype: of the computation; parameters are float32 and logits come out as float32.
      **overrides: fields of the network, such as `width`, `num_experts`, `routing`,
        `routing_ratio`, `drop_rate`, `drop_path_rate`, `bn_groups`.

    Returns:
      A module with `model.apply(variables, images, train=False)` -> logits and the collections
      `params` and, with batch norm, `batch_stats`.

    Raises:
      ValueError: for an unknown name or field, with the nearest one, for an unknown routing, and
        for experts of a static network.
    """
    if name not in _MODELS:
        raise ValueError(f"There is no model {name!r}; {nearest(name, list_models())}")
    network, fields = _MODELS[name]
    known = _fields_of(network)
    if "num_experts" not in fields and overrides.get("num_experts") is not None:
        raise ValueError(
            f"{name} is static and has no experts; leave num_experts unset, or take one of "
            f"{', '.join(n for n, (_, f) in sorted(_MODELS.items()) if 'num_experts' in f)}."
        )
    for field in overrides:
        if field not in known:
            raise ValueError(f"{name} has no field {field!r}; {nearest(field, sorted(known))}")
    if "routing" in overrides:
        check_routing(overrides["routing"])
    return network(num_classes=num_classes, dtype=dtype, **(fields | overrides))


def has_batch_norm(name: str) -> bool:
    """Whether the network of that name has the fields `bn_groups` and `bn_statistics`."""
    return "bn_groups" in _fields_of(_MODELS[name][0])


def _fields_of(network: Callable[..., nn.Module]) -> set[str]:
    """The fields that may be overridden: not those that make the network the one of its name."""
    return set(inspect.signature(network).parameters) - _OWN_FIELDS


def init_variables(model: nn.Module, key: jax.Array) -> dict[str, Any]:
    """Fresh `params` and `batch_stats`, as from `model.init` at a tenth of its compile time.

    Only the parameters leave the compiled function, so XLA drops the forward pass that made them;
    the running statistics start at mean 0 and variance 1, or are `{}` without batch norm. The
    distribution is that of `model.init`; the values with the same key are not.
    """
    images = jnp.zeros((1, 32, 32, 3))
    shapes, total = trace_init(lambda: model.init(key, images))

    def init(key: jax.Array) -> Any:
        with from_one_draw(key, total):
            return model.init(key, images)["params"]

    # The function runs once: time spent on optimising its machine code would be lost.
    params = jax.jit(init, compiler_options=_compile_quickly())(key)
    batch_stats = jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.full(leaf.shape, float(path[-1].key == "var"), leaf.dtype),
        shapes.get("batch_stats", {}),
    )
    return {"params": params, "batch_stats": batch_stats}


def _compile_quickly() -> dict[str, Any] | None:
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None


def nearest(name: str, known: list[str]) -> str:
    """The end of a sentence on a misspelt name: "did you mean 'x'?" or the names there are."""
    matches = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {matches[0]!r}?" if matches else f"there are {', '.join(known)}."
