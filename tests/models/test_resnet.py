"""ResNet: the exact size of ResNet-50, and the behaviour of two stages at tiny width."""

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
from pnet_jax.models.layers import BatchNorm, Conv, DropPath
from pnet_jax.models.resnet import ResNet

PUBLISHED = json.loads(
    (pathlib.Path(__file__).parents[1] / "parity" / "published_counts.json").read_text()
)

# Each program here runs once or twice: time spent on optimising its machine code would be lost.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def tiny(**fields):
    return ResNet(num_classes=10, stages=(2, 1), width=0.125, **fields)


def shapes_of(model):
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


@pytest.fixture
def images(rng):
    return jnp.float32(rng.normal(size=(8, 24, 24, 3)))


def test_parameters_as_published():
    assert count_parameters(shapes_of(create_model("resnet50"))["params"]) == 25_557_032
    assert PUBLISHED["resnet50"]["params"] == 25_557_032
    large = count_parameters(shapes_of(create_model("resnet50", num_classes=21841))["params"])
    assert large == 25_557_032 + 2049 * 20841


def test_the_3x3_convolution_has_the_stride():
    """Version 1.5; the first stage has none, and each stage's first block a projection."""
    strides = {}

    def record(next_call, args, kwargs, context):
        if isinstance(context.module, Conv) and context.module.strides > 1:
            strides["/".join(context.module.path)] = context.module.kernel_size
        return next_call(*args, **kwargs)

    with nn.intercept_methods(record):
        params = shapes_of(create_model("resnet50"))["params"]
    expected = {"conv1": 7}
    for stage in (2, 3, 4):
        expected |= {f"layer{stage}_0/conv2": 3, f"layer{stage}_0/downsample_conv": 1}
    assert strides == expected
    assert {name for name, block in params.items() if "downsample_conv" in block} == {
        f"layer{stage}_0" for stage in (1, 2, 3, 4)
    }


def test_blocks_start_as_their_shortcuts(images):
    """The last batch norm of a branch starts at scale zero, no other does."""
    variables = init_variables(tiny(), jax.random.key(0))
    for path, leaf in traverse_util.flatten_dict(variables["params"]).items():
        if path[-1] == "scale":
            np.testing.assert_array_equal(leaf, 0.0 if "bn3" in path else 1.0, err_msg=path)


def test_training_reaches_every_parameter_and_statistic(images):
    model = tiny(drop_rate=0.1, drop_path_rate=0.1)
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.ones_like(leaf) if path[-1].key == "scale" else leaf,
        init_variables(model, jax.random.key(0)),
    )

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
            return jnp.sum(jnp.sin(logits)), (logits, updates["batch_stats"])

        return jax.value_and_grad(loss, has_aux=True)(params)

    def run(seed):
        return train(variables["params"], images, jax.random.key(seed))

    (loss, (logits, stats)), gradients = run(1)
    assert (logits.shape, logits.dtype) == ((8, 10), jnp.float32)
    for path, gradient in traverse_util.flatten_dict(gradients).items():
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path
    before = traverse_util.flatten_dict(variables["batch_stats"])
    after = traverse_util.flatten_dict(stats)
    assert before.keys() == after.keys()
    assert all(np.abs(after[path] - before[path]).max() > 1e-4 for path in before)
    assert run(1)[0][0] == loss  # one key, one outcome
    assert run(2)[0][0] != loss


def test_evaluation(rng, images):
    """bfloat16 is near, the temperature changes nothing, logits are float32."""
    shapes = shapes_of(tiny())
    variables = jax.tree.map(lambda s: rng.uniform(0.1, 1.0, s.shape).astype(np.float32), shapes)
    variables["params"] = jax.tree.map(
        lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes["params"]
    )

    @jit
    def compute(variables, images):
        return (
            tiny().apply(variables, images),
            tiny(dtype=jnp.bfloat16).apply(variables, images),
            tiny().apply(variables, images, temperature=30.0),
        )

    logits, narrow, hot = compute(variables, images)
    assert logits.dtype == narrow.dtype == jnp.float32
    assert (narrow != logits).any()
    np.testing.assert_allclose(narrow, logits, atol=0.05 * float(jnp.abs(logits).max()))
    np.testing.assert_array_equal(hot, logits)


def test_drop_path_grows_over_the_blocks_and_batch_norm_has_the_networks_settings():
    rates, norms = [], []

    def record(next_call, args, kwargs, context):
        module = context.module
        if isinstance(module, DropPath):
            rates.append(module.rate)
        if isinstance(module, BatchNorm):
            norms.append((module.groups, module.statistics, module.dtype, module.epsilon))
        return next_call(*args, **kwargs)

    fields = {"bn_groups": 2, "bn_statistics": "running", "dtype": jnp.bfloat16}
    with nn.intercept_methods(record):
        shapes_of(create_model("resnet50", drop_path_rate=0.15, **fields))
    np.testing.assert_allclose(rates, np.linspace(0, 0.15, 16))
    assert norms == [(2, "running", jnp.bfloat16, 1e-5)] * 53
