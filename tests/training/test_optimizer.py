"""AdamW against a calculation by hand, and which parameters decay and learn how fast."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from pnet_jax.config import OptimizerConfig
from pnet_jax.models import create_model
from pnet_jax.models.ghostnet import STAGES_300M, GhostNet
from pnet_jax.training.optimizer import decay_mask, layer_index, layer_scales, make_optimizer

Tree = dict[tuple[str, ...], Any]

SHAPES: dict[tuple[str, ...], tuple[int, ...]] = {
    ("conv_stem", "experts"): (2, 3, 3, 3, 4),
    ("conv_stem", "routing", "out", "kernel"): (3, 2),
    ("conv_stem", "routing", "out", "bias"): (2,),
    ("bn1", "scale"): (4,),
    ("bn1", "bias"): (4,),
    ("blocks_0_0", "se", "conv_reduce", "kernel"): (1, 1, 4, 4),
    ("blocks_0_0", "se", "conv_reduce", "bias"): (4,),
    ("classifier", "kernel"): (4, 5),
    ("classifier", "bias"): (5,),
}
DECAYED = {path for path, shape in SHAPES.items() if len(shape) > 1}


def random_tree(rng: np.random.Generator, scale: float = 1.0) -> Tree:
    return {path: np.float32(scale * rng.normal(size=shape)) for path, shape in SHAPES.items()}


def updates(config: OptimizerConfig, params: Tree, gradients: list[Tree]) -> list[Tree]:
    """What the optimizer adds to the parameters for each of the gradients in turn."""
    optimizer = make_optimizer(config, optax.linear_schedule(0.1, 0.2, 2))
    nested = jax.tree.map(jnp.asarray, traverse_util.unflatten_dict(params))
    state, result = optimizer.init(nested), []
    for gradient in gradients:
        update, state = optimizer.update(traverse_util.unflatten_dict(gradient), state, nested)
        nested = optax.apply_updates(nested, update)
        result.append(traverse_util.flatten_dict(update))
    return result


def adamw_by_hand(config: OptimizerConfig, params: Tree, gradients: list[Tree]) -> list[Tree]:
    """Loshchilov and Hutter 2019 (arXiv 1711.05101), algorithm 2, and clipping, in float64."""
    params = {path: value.astype(np.float64) for path, value in params.items()}
    first = {path: np.zeros(shape) for path, shape in SHAPES.items()}
    second = {path: np.zeros(shape) for path, shape in SHAPES.items()}
    result = []
    for t, gradient in enumerate(gradients, start=1):
        norm = np.sqrt(sum(np.sum(np.float64(g) ** 2) for g in gradient.values()))
        clip = min(1.0, config.clip_norm / norm) if config.clip_norm > 0 else 1.0
        update = {}
        for path, raw in gradient.items():
            g = clip * np.float64(raw)
            first[path] = config.beta1 * first[path] + (1 - config.beta1) * g
            second[path] = config.beta2 * second[path] + (1 - config.beta2) * g**2
            m = first[path] / (1 - config.beta1**t)
            v = second[path] / (1 - config.beta2**t)
            decay = config.weight_decay if path in DECAYED else 0.0
            step = m / (np.sqrt(v) + config.epsilon) + decay * params[path]
            # The schedule's value after t - 1 updates.
            update[path] = -(0.1 + 0.05 * (t - 1)) * step
            params[path] = params[path] + update[path]
        result.append(update)
    return result


@pytest.mark.parametrize("clip_norm", [0.0, 5.0, 1e6])
def test_three_steps_by_hand(clip_norm: float, rng: np.random.Generator) -> None:
    config = OptimizerConfig(
        weight_decay=0.3, beta1=0.8, beta2=0.95, epsilon=1e-3, clip_norm=clip_norm
    )
    params = random_tree(rng)
    # The second gradient is below a norm of 5, the others are above.
    gradients = [random_tree(rng, scale) for scale in (1.0, 0.1, 3.0)]
    norms = [float(optax.tree.norm(gradient)) for gradient in gradients]
    assert [norm > 5 for norm in norms] == [True, False, True]
    got, expected = (f(config, params, gradients) for f in (updates, adamw_by_hand))
    for ours, theirs in zip(got, expected, strict=True):
        for path in SHAPES:
            np.testing.assert_allclose(ours[path], theirs[path], rtol=1e-4, atol=1e-6)


def test_without_gradient_only_kernels_and_experts_shrink(rng: np.random.Generator) -> None:
    params = random_tree(rng)
    zeros = {path: np.zeros(shape, np.float32) for path, shape in SHAPES.items()}
    (update,) = updates(OptimizerConfig(weight_decay=0.5), params, [zeros])
    for path in SHAPES:
        factor = -0.1 * 0.5 if path in DECAYED else 0.0
        np.testing.assert_allclose(update[path], factor * params[path], rtol=1e-5)


def params_of(model: Any) -> dict[str, Any]:
    init = lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))  # noqa: E731
    return jax.eval_shape(init)["params"]


@pytest.mark.parametrize("name", ["ghostnet_300m", "parameternet_300m", "parameternet_600m"])
def test_in_a_network_all_matrices_decay_and_no_vector(name: str) -> None:
    params = params_of(create_model(name, width=0.1))
    mask = decay_mask(params)
    assert mask == jax.tree.map(lambda leaf: len(leaf.shape) > 1, params)
    last_names = {path[-1] for path, on in traverse_util.flatten_dict(mask).items() if not on}
    assert last_names == {"scale", "bias"}


def test_layers_of_a_network() -> None:
    params = params_of(GhostNet(num_classes=5, stages=STAGES_300M[:2], width=0.2, num_experts=2))
    scales = layer_scales(params, 0.5)
    assert {name: set(jax.tree.leaves(scales[name])) for name in params} == {
        "conv_stem": {0.5**4},
        "bn1": {0.5**4},
        "blocks_0_0": {0.5**3},
        "blocks_1_0": {0.5**2},
        "blocks_2_0_conv": {0.5},
        "blocks_2_0_bn1": {0.5},
        "conv_head": {1.0},
        "classifier": {1.0},
    }


@pytest.mark.parametrize(
    ("name", "stages"),
    [("resnet50", (3, 4, 6, 3)), ("efficientnetv2_b0", (1, 2, 2, 3, 5, 8))],
)
def test_layers_of_the_other_convolutional_networks(name: str, stages: tuple[int, ...]) -> None:
    """Stem, stages, head, and every matrix decays."""
    params = params_of(create_model(name, width=0.1))
    indices = [layer_index((module,)) for module in params]
    first = int(name == "resnet50")  # which counts its stages from 1
    expected = {first + 1 + stage: blocks for stage, blocks in enumerate(stages)}
    head = len(params) - 2 - sum(stages)
    assert {index: indices.count(index) for index in indices} == {0: 2, **expected, 1000: head}
    scales = layer_scales(params, 0.5)
    assert set(jax.tree.leaves(scales["bn1"])) == {0.5 ** (len(stages) + 1)}
    assert set(jax.tree.leaves(scales["classifier"])) == {1.0}
    assert decay_mask(params) == jax.tree.map(lambda leaf: len(leaf.shape) > 1, params)


def test_layers_of_a_transformer_in_stages() -> None:
    """Swin's names: a stage's blocks and the merging of patches are one layer."""
    names = ("patch_embed", "layers_0_blocks_1", "layers_2_downsample", "layers_2_blocks_17")
    assert [layer_index((name, "attn", "qkv", "kernel")) for name in names] == [0, 1, 3, 3]
    assert [layer_index((name, "bias")) for name in ("norm", "head")] == [1000, 1000]


def test_all_blocks_of_a_stage_are_one_layer() -> None:
    params = params_of(create_model("parameternet_300m", width=0.1))
    stages: dict[int, int] = {}
    for name in params:
        index = layer_index((name,))
        stages[index] = stages.get(index, 0) + 1
    # Stem, nine stages of 1 to 5 blocks, the last 1x1 convolution, and the head.
    blocks = {stage + 1: len(rows) for stage, rows in enumerate(STAGES_300M)}
    assert stages == {0: 2, **blocks, 10: 2, 1000: 2}


def test_layer_decay_scales_the_whole_update(rng: np.random.Generator) -> None:
    params, gradients = random_tree(rng), [random_tree(rng), random_tree(rng)]
    even = updates(OptimizerConfig(), params, gradients[:1])
    graded = updates(OptimizerConfig(layer_decay=0.5), params, gradients[:1])
    factors = {"conv_stem": 0.25, "bn1": 0.25, "blocks_0_0": 0.5, "classifier": 1.0}
    for path in SHAPES:
        np.testing.assert_allclose(
            graded[0][path], factors[path[0]] * even[0][path], rtol=1e-6, atol=0
        )
