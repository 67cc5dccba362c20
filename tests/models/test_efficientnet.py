"""EfficientNet: exact sizes of the full tables, and the behaviour of small ones."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from pnet_jax.analysis.count import count_parameters
from pnet_jax.models import create_model, init_variables
from pnet_jax.models.dynamic import DynamicConv
from pnet_jax.models.efficientnet import Block, EfficientNet, Row
from pnet_jax.models.layers import BatchNorm, Conv, DropPath

PUBLISHED = json.loads(
    (pathlib.Path(__file__).parents[1] / "parity" / "published_counts.json").read_text()
)

# Every kind of block, with and without a shortcut, and with squeeze-and-excite.
STAGES = (
    Row("conv", 3, 1, 1, 8, 0, 1),
    Row("separable", 5, 2, 1, 8, 0, 2),
    Row("fused", 3, 1, 2, 8, 0, 1),
    Row("inverted", 3, 2, 2, 16, 0.25, 2),
)

# Each program here runs once or twice: time spent on optimising its machine code would be lost.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def tiny(**fields):
    fields = {"num_classes": 10, "stages": STAGES, "stem_features": 8, "drop_rate": 0.0} | fields
    return EfficientNet(**fields)


def shapes_of(model):
    """Of all variables, which do not depend on the form; the reference form traces fastest."""
    model = model.copy(form="grouped")
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def modules_of(model, kind):
    """The modules of a class that the network is made of, by their path."""
    found = {}

    def record(next_call, args, kwargs, context):
        if isinstance(context.module, kind):
            found["/".join(context.module.path)] = context.module
        return next_call(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes_of(model)
    return found


@pytest.fixture
def images(rng):
    return jnp.float32(rng.normal(size=(8, 24, 24, 3)))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("efficientnetv2_b0", PUBLISHED["efficientnetv2_b0"]["params"]),
        ("efficientnetv2_b1", 8_141_052),
        ("efficientnetv2_b2", 10_096_086),
        ("efficientnetv2_b3", 14_358_406),
        ("efficientnetv2_s", 21_458_488),
        ("efficientnet_lite0", 4_652_008),
        ("efficientnetv2_b0_dynamic", 26_764_752),
    ],
)
def test_parameters(name, count):
    """Those of timm's networks, and what is stated of the dynamic one."""
    assert count_parameters(shapes_of(create_model(name))["params"]) == count


def test_experts_of_the_dynamic_network():
    """With the classes of ImageNet-22K; one expert without routers has the static parameters."""
    name = "efficientnetv2_b0_dynamic"
    large = shapes_of(create_model(name, num_classes=21841))["params"]
    assert count_parameters(large) == 53_462_073
    params = shapes_of(create_model(name, num_experts=1))["params"]
    flat = traverse_util.flatten_dict(params, sep="/")
    kernels = {path: leaf for path, leaf in flat.items() if "/routing/" not in path}
    assert count_parameters(kernels) == PUBLISHED["efficientnetv2_b0"]["params"]


def test_what_stays_static():
    """The strided depthwise convolutions, squeeze-and-excite, the head and the classifier."""
    model = create_model("efficientnetv2_b0_dynamic")
    static, dynamic = modules_of(model, Conv), modules_of(model, DynamicConv)
    assert {name for name in static if "/se/" not in name} == {
        "blocks_3_0/conv_dw",
        "blocks_5_0/conv_dw",
        "conv_head",
    }
    # The stem, the first stage, two of each fused and three of each inverted block, less two.
    assert len(dynamic) == 1 + 1 + 2 * 4 + 3 * 16 - 2
    assert {layer.num_experts for layer in dynamic.values()} == {4}


def test_every_convolution_of_the_published_networks_pads_as_tensorflow():
    for name in ("efficientnetv2_b0_dynamic", "efficientnet_lite0"):
        model = create_model(name)
        layers = modules_of(model, Conv) | modules_of(model, DynamicConv)
        spatial = [layer for layer in layers.values() if layer.kernel_size > 1]
        assert {layer.padding for layer in spatial} == {"same"}


def test_width_and_depth():
    """B3: 1.2 times the channels, to the nearest 8, and 1.4 times the blocks, rounded up."""
    params = shapes_of(create_model("efficientnetv2_b3"))["params"]
    blocks = [int(name.split("_")[1]) for name in params if name.startswith("blocks")]
    assert [blocks.count(stage) for stage in range(6)] == [2, 3, 3, 5, 7, 12]
    assert params["conv_stem"]["kernel"].shape == (3, 3, 3, 40)
    assert params["blocks_0_0"]["conv"]["kernel"].shape == (3, 3, 40, 16)
    assert params["blocks_5_11"]["conv_pwl"]["kernel"].shape == (1, 1, 1392, 232)
    assert params["blocks_5_11"]["se"]["conv_reduce"]["kernel"].shape == (1, 1, 1392, 58)
    assert params["conv_head"]["kernel"].shape == (1, 1, 232, 1536)


def test_evaluation(rng, images):
    """The reference form agrees, bfloat16 is near, the temperature matters, logits are float32."""
    model = tiny(num_experts=3)
    variables = opened(init_variables(model, jax.random.key(0)))

    @jit
    def compute(variables, images, temperature):
        forms = ({"form": "auto"}, {"form": "grouped"}, {"dtype": jnp.bfloat16})
        models = [tiny(num_experts=3, **fields) for fields in forms]
        return [model.apply(variables, images, temperature=temperature) for model in models]

    logits, grouped, narrow = compute(variables, images, jnp.float32(1))
    even, _, _ = compute(variables, images, jnp.float32(1e6))
    for value in (logits, grouped, narrow):
        assert (value.shape, value.dtype) == ((8, 10), jnp.float32)
    scale = float(jnp.abs(logits).max())
    np.testing.assert_allclose(grouped, logits, atol=1e-5 * scale)
    np.testing.assert_allclose(narrow, logits, atol=0.05 * scale)
    assert (narrow != logits).any()
    assert float(jnp.abs(even - logits).max()) > 1e-3 * scale


def opened(variables):
    """Residual branches start at scale zero, where much of the network would have no gradient, and
    biases at zero, where a batch norm after a 1x1 after a batch norm has a mean of zero."""
    start = {"scale": 1.0, "bias": 0.3}
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            np.full_like(leaf, start.get(path[-1].key, 0.0))
            if path[-1].key in start and "bn" in path[-2].key
            else leaf
        ),
        variables,
    )


def test_branches_beside_a_shortcut_start_at_zero():
    variables = init_variables(tiny(), jax.random.key(0))
    zero = {
        "/".join(path[:-1])
        for path, leaf in traverse_util.flatten_dict(variables["params"]).items()
        if path[-1] == "scale" and not np.any(leaf)
    }
    assert zero == {"blocks_0_0/bn1", "blocks_1_1/bn2", "blocks_2_0/bn2", "blocks_3_1/bn3"}


@pytest.mark.parametrize("num_experts", [None, 3])
def test_training_reaches_every_parameter_and_statistic(images, num_experts):
    """With routers as wide as their input: one hidden unit may never be active."""
    model = tiny(num_experts=num_experts, routing_ratio=1.0, drop_rate=0.1, drop_path_rate=0.1)
    variables = opened(init_variables(model, jax.random.key(0)))

    @jit
    def train(params, images, key):
        def loss(params):
            logits, updates = model.apply(
                {**variables, "params": params},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            return jnp.sum(jnp.sin(3 * logits)), (logits, updates["batch_stats"])

        return jax.value_and_grad(loss, has_aux=True)(params)

    def run(seed):
        return train(variables["params"], images, jax.random.key(seed))

    (loss, (_, stats)), gradients = run(1)
    for path, gradient in traverse_util.flatten_dict(gradients).items():
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path
    before = traverse_util.flatten_dict(variables["batch_stats"])
    after = traverse_util.flatten_dict(stats)
    assert before.keys() == after.keys()
    assert all(np.abs(after[path] - before[path]).max() > 1e-4 for path in before)
    assert run(1)[0][0] == loss  # one key, one outcome
    assert run(2)[0][0] != loss


def test_drop_path_grows_over_the_blocks():
    """Linearly over all 21 blocks; those without a shortcut have nothing to drop."""
    model = create_model("efficientnetv2_b0", drop_path_rate=0.21)
    rates = {name.split("/")[0]: layer.rate for name, layer in modules_of(model, DropPath).items()}
    order = list(modules_of(model, Block))
    assert len(order) == 21
    assert len(rates) == 21 - 6
    for name, rate in rates.items():
        assert rate == pytest.approx(0.01 * order.index(name))


def test_batch_norm_carries_the_networks_settings():
    """Every normalisation of the network, none forgotten, with TensorFlow's epsilon."""
    model = tiny(bn_groups=2, bn_statistics="running", dtype=jnp.bfloat16)
    layers = modules_of(model, BatchNorm).values()
    settings = {(layer.groups, layer.statistics, layer.dtype, layer.epsilon) for layer in layers}
    assert settings == {(2, "running", jnp.bfloat16, 1e-3)}
    assert 2 * len(layers) == len(jax.tree.leaves(shapes_of(model)["batch_stats"]))
