"""The network: exact sizes of the full tables, and the behaviour of two stages at tiny width."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import errors, traverse_util
from flax import linen as nn

from pnet_jax.analysis.count import count_parameters
from pnet_jax.models import create_model, init_variables
from pnet_jax.models.ghostnet import GhostBottleneck, GhostModule, GhostNet, Options, Row
from pnet_jax.models.layers import BatchNorm, DropPath

PUBLISHED = json.loads(
    (pathlib.Path(__file__).parents[1] / "parity" / "published_counts.json").read_text()
)

# Both kinds of bottleneck: the input added as it is, and strided with squeeze-and-excite.
STAGES = ((Row(3, 16, 16, 0, 1),), (Row(3, 48, 24, 0.25, 2),))

# Each program here runs once or twice: time spent on optimising its machine code would be lost.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def tiny(**fields):
    return GhostNet(num_classes=10, stages=STAGES, width=0.25, drop_rate=0.0, **fields)


def static_options(**fields):
    options = Options(
        act=nn.relu,
        num_experts=None,
        routing="softmax_mlp",
        routing_ratio=0.25,
        form="auto",
        num_branches=1,
        bn_groups=1,
        bn_statistics="batch",
        dtype=jnp.float32,
    )
    return options._replace(**fields)


def shapes_of(model):
    """Of all variables, which do not depend on the form; the reference form traces fastest."""
    model = model.copy(form="grouped")
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


@pytest.fixture(scope="module")
def variables():
    """Of the tiny network with four experts; running averages that are not where they start."""
    fresh = init_variables(tiny(num_experts=4), jax.random.key(0))
    rng = np.random.default_rng(0)
    stats = jax.tree.map(
        lambda leaf: (leaf + rng.uniform(0.1, 0.5, leaf.shape)).astype(leaf.dtype),
        fresh["batch_stats"],
    )
    return {"params": fresh["params"], "batch_stats": stats}


@pytest.fixture
def images(rng):
    return jnp.float32(rng.normal(size=(8, 16, 16, 3)))


@pytest.mark.parametrize("size", ["300m", "600m"])
@pytest.mark.parametrize("num_experts", [1, 2, 4, 8])
def test_parameters_as_published(size, num_experts):
    """The published code's router is the one linear layer before a sigmoid."""
    published = PUBLISHED[f"parameternet_{size}_official"]
    name = f"parameternet_{size}"
    model = create_model(name, num_experts=num_experts, routing="sigmoid_linear")
    params = shapes_of(model)["params"]
    count = count_parameters(params)
    assert count == published["params_by_experts"][str(num_experts)]
    if num_experts == 4:
        assert count == published["params"]
        dynamic = [path for path in traverse_util.flatten_dict(params) if path[-1] == "experts"]
        assert len(dynamic) == published["dynamic_convs"] == {"300m": 76, "600m": 88}[size]
        large = count - count_parameters(params["classifier"]) + 1281 * 21841
        assert large == published["params_21841_classes"]


@pytest.mark.parametrize(
    ("name", "fields", "count"),
    [
        ("ghostnet_300m", {}, PUBLISHED["ghostnet_300m"]["params"]),
        ("ghostnet_600m", {}, 19_822_198),
        ("ghostnet_100", {}, 5_182_508),
        ("ghostnet_130", {}, 7_358_820),
        ("parameternet_300m", {}, 19_125_405),  # the default, softmax_mlp
        ("parameternet_600m", {}, 41_943_294),
        (
            "parameternet_300m",
            {"num_classes": 21841, "routing": "sigmoid_linear"},
            PUBLISHED["parameternet_300m_official"]["params_21841_classes"],
        ),
    ],
)
def test_parameters_of_the_other_networks(name, fields, count):
    assert count_parameters(shapes_of(create_model(name, **fields))["params"]) == count


def test_what_stays_static():
    """The strided depthwise convolutions, squeeze-and-excite, the head and the classifier."""
    params = traverse_util.flatten_dict(shapes_of(tiny(num_experts=4))["params"], sep="/")
    kernels = {path.removesuffix("/kernel") for path in params if path.endswith("/kernel")}
    assert {path for path in kernels if "routing" not in path} == {
        "blocks_1_0/conv_dw",
        "blocks_1_0/se/conv_reduce",
        "blocks_1_0/se/conv_expand",
        "conv_head",
        "classifier",
    }
    experts = {path.removesuffix("/experts") for path in params if path.endswith("/experts")}
    assert {path for path in experts if "ghost" not in path} == {
        "conv_stem",
        "blocks_1_0/shortcut_dw",
        "blocks_1_0/shortcut_pw",
        "blocks_2_0_conv",
    }
    assert len(experts) == 4 + 2 * 4


def test_evaluation(variables, images):
    """The reference form agrees, bfloat16 is near, the temperature matters, logits are float32."""

    @jit
    def compute(variables, images, temperature):
        forms = ({"form": "auto"}, {"form": "grouped"}, {"dtype": jnp.bfloat16})
        models = [tiny(num_experts=4, **fields) for fields in forms]
        return [model.apply(variables, images, temperature=temperature) for model in models]

    logits, grouped, narrow = compute(variables, images, jnp.float32(1))
    even, _, _ = compute(variables, images, jnp.float32(1e6))
    assert compute._cache_size() == 1
    for value in (logits, grouped, narrow):
        assert (value.shape, value.dtype) == ((8, 10), jnp.float32)
    scale = float(jnp.abs(logits).max())
    np.testing.assert_allclose(grouped, logits, atol=1e-5 * scale)
    assert np.corrcoef(narrow.ravel(), logits.ravel())[0, 1] > 0.999
    assert (narrow != logits).any()
    assert float(jnp.abs(even - logits).max()) > 1e-3 * scale


def test_training_reaches_every_parameter_and_statistic(images):
    """With a router as wide as its input: one hidden unit may never be active."""
    model = tiny(num_experts=4, routing_ratio=1.0, drop_path_rate=0.2)
    variables = jax.tree_util.tree_map_with_path(
        # Residual branches start at scale zero, where much of the network would have no gradient.
        lambda path, leaf: np.ones_like(leaf) if path[-1].key == "scale" else leaf,
        init_variables(model, jax.random.key(0)),
    )

    @jit
    def train(params, stats, images, key):
        def loss(params):
            logits, updates = model.apply(
                {"params": params, "batch_stats": stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            return jnp.sum(jnp.sin(3 * logits)), (logits, updates["batch_stats"])

        return jax.value_and_grad(loss, has_aux=True)(params)

    def run(seed):
        return train(variables["params"], variables["batch_stats"], images, jax.random.key(seed))

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


def test_what_training_asks_for(variables, images):
    """A key for dropout, and statistics that may change; evaluation asks for neither."""
    model = tiny(num_experts=4).copy(drop_rate=0.5)

    def trace(**arguments):
        return jax.eval_shape(lambda: model.apply(variables, images, **arguments))

    assert trace().shape == (8, 10)
    with pytest.raises(errors.InvalidRngError, match="dropout"):
        trace(train=True, mutable=["batch_stats"])
    with pytest.raises(errors.ModifyScopeVariableError, match="batch_stats"):
        trace(train=True, rngs={"dropout": jax.random.key(0)})


def test_dropout_and_batch_norm_in_training(rng, images):
    """Two groups are two batches; frozen statistics make training what evaluation is."""
    shapes = shapes_of(tiny())
    variables = jax.tree.map(
        lambda leaf: rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32), shapes
    )

    def train(images, seed=0, **fields):
        model = tiny().copy(**fields)
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)

    @jit
    def compute(images):
        return {
            "whole": train(images),
            "grouped": train(images, bn_groups=2),
            "frozen": train(images, bn_statistics="running"),
            "evaluated": (tiny().apply(variables, images), None),
            "dropped": train(images, drop_rate=0.5),
            "dropped otherwise": train(images, drop_rate=0.5, seed=1),
        }

    results = compute(images)
    logits = {name: result[0] for name, result in results.items()}
    halves = [jit(train)(half) for half in (images[:4], images[4:])]
    np.testing.assert_allclose(
        logits["grouped"], jnp.concatenate([half[0] for half in halves]), rtol=1e-4, atol=1e-4
    )
    assert float(jnp.abs(logits["grouped"] - logits["whole"]).max()) > 0.01
    average = jax.tree.map(lambda a, b: (a + b) / 2, halves[0][1], halves[1][1])
    for ours, expected in zip(
        jax.tree.leaves(results["grouped"][1]), jax.tree.leaves(average), strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)

    np.testing.assert_allclose(logits["frozen"], logits["evaluated"], rtol=1e-5)
    kept = jax.tree.leaves(results["frozen"][1]["batch_stats"])
    for ours, before in zip(kept, jax.tree.leaves(variables["batch_stats"]), strict=True):
        np.testing.assert_array_equal(ours, before)

    for other in ("whole", "dropped otherwise"):
        assert (logits["dropped"] != logits[other]).any()


def test_drop_path_grows_over_the_stages():
    """Linearly over the table's nine groups, not over blocks, as in the published code."""
    rates = {}

    def record(next_call, args, kwargs, context):
        if isinstance(context.module, DropPath):
            rates[context.module.path[-2]] = context.module.rate
        return next_call(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes_of(create_model("ghostnet_300m", drop_path_rate=0.18))
    assert len(rates) == 16
    for name, rate in rates.items():
        assert rate == pytest.approx(0.02 * int(name.split("_")[1]))


def test_a_ghost_module_cuts_the_surplus(rng, key):
    """Five features are three by 1x1 and the first two of three cheap ones."""
    x = jnp.float32(rng.normal(size=(2, 4, 4, 6)))
    module = GhostModule(5, nn.relu, static_options())
    variables = jit(lambda: module.init(key, x, 1.0, train=False))()
    kernels = {
        name: layer["kernel"] for name, layer in variables["params"].items() if "conv" in name
    }
    assert {name: kernel.shape for name, kernel in kernels.items()} == {
        "primary_conv": (1, 1, 6, 3),
        "cheap_conv": (3, 3, 1, 3),
    }
    parts = jit(lambda: module.apply(variables, x, 1.0, train=False))()
    assert [part.shape for part in parts] == [(2, 4, 4, 3), (2, 4, 4, 2)]
    y = jnp.concatenate(parts, axis=-1)
    primary = np.maximum(np.asarray(x @ kernels["primary_conv"][0, 0]) / np.sqrt(1 + 1e-5), 0)
    np.testing.assert_allclose(y[..., :3], primary, rtol=1e-5, atol=1e-6)
    padded = np.pad(primary, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    cheap = np.einsum("nhwcij,ijc->nhwc", windows, kernels["cheap_conv"][:, :, 0])
    cheap = np.maximum(cheap / np.sqrt(1 + 1e-5), 0)
    np.testing.assert_allclose(y[..., 3:], cheap[..., :2], rtol=1e-5, atol=1e-6)


def test_a_bottleneck_without_stride_adds_to_its_input(rng, key):
    """With the second ghost module switched off, the identity."""
    x = jnp.float32(rng.normal(size=(2, 4, 4, 8)))
    block = GhostBottleneck(
        expansion=16,
        features=8,
        kernel_size=3,
        strides=1,
        se_ratio=0.25,
        drop_path_rate=0.0,
        options=static_options(),
    )
    shapes = jax.eval_shape(lambda: block.init(key, x, 1.0, train=False))
    params = traverse_util.flatten_dict(
        jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)["params"]
    )
    assert ("shortcut_pw", "kernel") not in params
    for path in params:
        if path[0] == "ghost2" and path[1].endswith("bn"):
            params[path] = np.zeros_like(params[path])
    stats = jax.tree.map(lambda leaf: np.ones(leaf.shape), shapes["batch_stats"])
    params = jax.tree.map(np.float32, traverse_util.unflatten_dict(params))
    variables = {"params": params, "batch_stats": stats}
    y = jit(lambda: block.apply(variables, x, 1.0, train=False))()
    np.testing.assert_array_equal(y, x)


def test_batch_norm_carries_the_networks_settings():
    """Every normalisation of the network, none forgotten."""
    seen = []

    def record(next_call, args, kwargs, context):
        if isinstance(context.module, BatchNorm):
            module = context.module
            seen.append((module.groups, module.statistics, module.dtype, module.momentum))
        return next_call(*args, **kwargs)

    model = tiny(bn_groups=2, bn_statistics="running", dtype=jnp.bfloat16)
    with nn.intercept_methods(record):
        shapes = shapes_of(model)
    assert seen == [(2, "running", jnp.bfloat16, 0.9)] * len(seen)
    assert 2 * len(seen) == len(jax.tree.leaves(shapes["batch_stats"]))
