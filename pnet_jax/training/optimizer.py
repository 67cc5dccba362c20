"""AdamW as these recipes use it: what decays, and how fast each layer learns."""

import re
from typing import Any

import jax
import optax

from pnet_jax.config import OptimizerConfig

_DECAYED = ("kernel", "experts")


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Clipping by global norm, AdamW, and layer-wise learning rates, where asked for."""
    steps = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm > 0 else []
    steps.append(
        optax.adamw(
            schedule,
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=decay_mask,
        )
    )
    if config.layer_decay != 1.0:
        steps.append(_scale_by_layer(config.layer_decay))
    return optax.chain(*steps)


def decay_mask(params: Any) -> Any:
    """True for kernels and experts, not for batch norm's parameters and biases (routers' too)."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in _DECAYED, params)


def layer_index(path: tuple[str, ...]) -> int:
    """0 for the stem, more for each stage, and the largest number for the head.

    The names are those of the networks in `models`: stages are `blocks_I_*` (GhostNet,
    EfficientNet), `layerI_*` (ResNet) or `layers_I_*` (Swin).
    """
    if stage := re.match(r"(?:blocks_|layers_|layer)(\d+)_", path[0]):
        return 1 + int(stage[1])
    stem = re.match(r"conv_stem|conv1|bn1|patch_embed", path[0])
    return 0 if stem else 1000


def layer_scales(params: Any, decay: float) -> Any:
    """decay^(layers above) for each parameter: 1 for the head, `decay` for the last stage, ..."""
    paths = jax.tree_util.tree_map_with_path(
        lambda path, _: layer_index(tuple(entry.key for entry in path)), params
    )
    layers = sorted(set(jax.tree.leaves(paths)))
    above = {layer: len(layers) - 1 - place for place, layer in enumerate(layers)}
    return jax.tree.map(lambda layer: decay ** above[layer], paths)


def _scale_by_layer(decay: float) -> optax.GradientTransformation:
    def update(updates: Any, params: Any) -> Any:
        del params
        return jax.tree.map(lambda u, scale: u * scale, updates, layer_scales(updates, decay))

    return optax.stateless(update)
