"""Swin: exact sizes of the full networks, and the behaviour of a tiny one at all kinds of sizes."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from pnet_jax.analysis.count import count_macs, count_parameters
from pnet_jax.models import create_model, init_variables
from pnet_jax.models.layers import DropPath
from pnet_jax.models.swin import Options, PatchEmbed, PatchMerging, Swin, WindowAttention

PUBLISHED = json.loads(
    (pathlib.Path(__file__).parents[1] / "parity" / "published_counts.json").read_text()
)

# Each program here runs once or twice: time spent on optimising its machine code would be lost.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

STATIC = Options(None, "softmax_mlp", 0.25, "auto", jnp.float32)

SIZES = [
    # name, channels, depths, heads, experts, parameters, MACs
    ("swin_300m", 24, (2, 2, 5, 2), 1, None, 1_819_738, 286_270_464),
    ("swin_300m_dynamic", 24, (2, 2, 5, 2), 1, 4, 7_285_170, 293_337_360),
    ("swin_1g", 48, (2, 2, 4, 2), 2, None, 6_399_428, 980_697_600),
    ("swin_2g", 72, (2, 2, 3, 2), 3, None, 13_076_518, 1_953_225_216),
    ("swin_tiny", 96, (2, 2, 6, 2), 3, None, 28_288_354, 4_490_566_656),
    ("swin_small", 96, (2, 2, 18, 2), 3, None, 49_606_258, 8_740_875_264),
    ("swin_base", 128, (2, 2, 18, 2), 4, None, 87_768_224, 15_430_946_816),
]


def tiny(**fields):
    return Swin(**{"num_classes": 10, "embed_dim": 8, "depths": (2, 2), "num_heads": 2} | fields)


def shapes_of(model):
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)["params"]


def linears(channels, depths):
    """Inputs, outputs and input pixels at 224 px of the linear layers that may be dynamic."""
    for stage, depth in enumerate(depths):
        c, pixels = channels << stage, (56 >> stage) ** 2
        if stage > 0:
            yield 2 * c, c, pixels
        for _ in range(depth):
            yield from ((c, 3 * c, pixels), (c, c, pixels), (c, 4 * c, pixels), (4 * c, c, pixels))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size[0])
def test_parameters_by_hand(size):
    name, channels, depths, heads, num_experts, parameters, _ = size
    params = shapes_of(create_model(name))
    assert count_parameters(params) == parameters

    expected = (4 * 4 * 3 + 1) * channels + 2 * channels  # patches and their norm
    expected += 2 * 8 * channels + (8 * channels + 1) * 1000  # the last norm and the classifier
    for stage, depth in enumerate(depths):
        c = channels << stage
        expected += 2 * 2 * c if stage > 0 else 0  # the norm of the four halves of c
        norms, biases, table = 2 * 2 * c, (3 + 1 + 4 + 1) * c, 13 * 13 * (heads << stage)
        expected += depth * (norms + biases + table)
    for inputs, outputs, _ in linears(channels, depths):
        expected += inputs * outputs * (num_experts or 1)
        if num_experts:
            hidden = inputs // 4
            expected += (inputs + 1) * hidden + (hidden + 1) * num_experts
    assert parameters == expected


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size[0])
def test_macs_by_hand(size):
    """At 224 px, where no window is filled up."""
    name, channels, depths, _, num_experts, _, macs = size
    assert count_macs(create_model(name), 224).total == macs

    expected = 56**2 * 48 * channels + 8 * channels * 1000
    for stage, depth in enumerate(depths):
        # Each pixel meets the 49 of its window twice, in scores and in the weighted sum.
        expected += depth * (56 >> stage) ** 2 * 2 * 49 * (channels << stage)
    for inputs, outputs, pixels in linears(channels, depths):
        expected += pixels * inputs * outputs
        if num_experts:
            expected += num_experts * inputs * outputs
            expected += inputs * (inputs // 4) + (inputs // 4) * num_experts
    assert macs == expected


def test_macs_as_published():
    """The published count leaves out attention's two products, and takes `qkv` and `proj`, which
    its code applies to windows, of one window of the map alone.
    """
    published = PUBLISHED["swin_tiny"]
    assert published["params"] == SIZES[4][5]
    products, other_windows = 0, 0
    for stage, depth in enumerate((2, 2, 6, 2)):
        c, pixels = 96 << stage, (56 >> stage) ** 2
        products += depth * pixels * 2 * 49 * c
        other_windows += depth * (pixels - 49) * 4 * c * c
    total = published["macs"]["conv_linear"] + products + other_windows
    assert count_macs(create_model("swin_tiny"), published["resolution"]).total == total


def test_sizes_are_within_their_budgets():
    """With one more block in the third stage they would not be."""
    budgets = {"300m": 300e6, "1g": 1e9, "2g": 2e9}
    for name, channels, *_, macs in SIZES[:4]:
        budget = budgets[name.split("_")[1]]
        block = 14**2 * (12 * (4 * channels) ** 2 + 98 * 4 * channels)
        assert macs <= budget < macs + block


def test_what_is_dynamic():
    params = traverse_util.flatten_dict(shapes_of(tiny(num_experts=4)), sep="/")
    experts = {path.removesuffix("/experts") for path in params if path.endswith("/experts")}
    blocks = [f"layers_{stage}_blocks_{block}" for stage in (0, 1) for block in (0, 1)]
    layers = ("attn/qkv", "attn/proj", "mlp/fc1", "mlp/fc2")
    assert experts == {"layers_1_downsample/reduction"} | {
        f"{block}/{layer}" for block in blocks for layer in layers
    }
    kernels = {path for path in params if path.endswith("kernel") and "routing" not in path}
    assert kernels == {"patch_embed/proj/kernel", "head/kernel"}
    assert params["layers_1_blocks_0/attn/qkv/bias"].shape == (48,)


def test_names_of_the_layers():
    """Layer-wise learning rates go by them."""
    assert shapes_of(tiny(depths=(1, 2, 1))).keys() == {
        "patch_embed",
        "layers_0_blocks_0",
        *("layers_1_downsample", "layers_1_blocks_0", "layers_1_blocks_1"),
        *("layers_2_downsample", "layers_2_blocks_0"),
        *("norm", "head"),
    }


@pytest.mark.parametrize(
    ("name", "width", "channels"),
    [("swin_300m", 0.5, 12), ("swin_tiny", 0.5, 48), ("swin_tiny", 0.1, 9), ("swin_base", 0.01, 4)],
)
def test_width_keeps_the_heads(name, width, channels):
    params = shapes_of(create_model(name, width=width))
    whole = shapes_of(create_model(name))
    assert params["patch_embed"]["proj"]["kernel"].shape == (4, 4, 3, channels)
    tables = [
        tree["layers_0_blocks_0"]["attn"]["relative_position_bias_table"].shape
        for tree in (params, whole)
    ]
    assert tables[0] == tables[1]


@pytest.fixture(scope="module")
def variables():
    """Of the tiny network with four experts, its offsets' biases and norms moved to where they
    matter.
    """
    fresh = init_variables(tiny(num_experts=4), jax.random.key(0))
    rng = np.random.default_rng(0)
    moved = jax.tree.map(
        lambda leaf: np.float32(leaf + rng.normal(size=leaf.shape) * 0.2), fresh["params"]
    )
    return {"params": moved}


@pytest.fixture
def images(rng):
    """Ten by eight patches: a shifted row of windows that is filled up."""
    return jnp.float32(rng.normal(size=(4, 40, 32, 3)))


def test_evaluation(variables, images):
    """The reference form agrees, bfloat16 is near, the temperature matters, logits are float32, and
    an image's kernels are its own, though windows are cut from all images.
    """

    @jit
    def compute(variables, images, temperature):
        forms = ({"form": "auto"}, {"form": "grouped"}, {"dtype": jnp.bfloat16})
        models = [tiny(num_experts=4, **fields) for fields in forms]
        logits = [model.apply(variables, images, temperature=temperature) for model in models]
        alone = models[0].apply(variables, images[1:2], temperature=temperature)
        return *logits, alone

    logits, grouped, narrow, alone = compute(variables, images, jnp.float32(1))
    even, *_ = compute(variables, images, jnp.float32(1e6))
    assert compute._cache_size() == 1
    for value in (logits, grouped, narrow):
        assert (value.shape, value.dtype) == ((4, 10), jnp.float32)
    scale = float(jnp.abs(logits).max())
    np.testing.assert_allclose(grouped, logits, atol=1e-5 * scale)
    np.testing.assert_allclose(alone, logits[1:2], atol=1e-5 * scale)
    np.testing.assert_allclose(narrow, logits, atol=0.05 * scale)
    assert (narrow != logits).any()
    assert float(jnp.abs(even - logits).max()) > 1e-3 * scale


@pytest.mark.parametrize("num_experts", [None, 4])
def test_training_reaches_every_parameter(images, num_experts):
    """With routers as wide as their input: one hidden unit may never be active."""
    fields = {"num_experts": num_experts, "routing_ratio": 1.0}
    model = tiny(depths=(2, 1), drop_path_rate=0.2, drop_rate=0.1, **fields)
    params = init_variables(model, jax.random.key(0))["params"]

    @jit
    def train(params, key):
        def loss(params):
            logits, updates = model.apply(
                {"params": params},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            assert updates == {}
            return jnp.sum(jnp.sin(3 * logits))

        return jax.value_and_grad(loss)(params)

    loss, gradients = train(params, jax.random.key(1))
    for path, gradient in traverse_util.flatten_dict(gradients).items():
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path
    assert train(params, jax.random.key(1))[0] == loss  # one key, one outcome
    assert train(params, jax.random.key(2))[0] != loss


@pytest.mark.parametrize(("height", "width"), [(14, 14), (10, 16), (5, 9), (3, 2)])
@pytest.mark.parametrize("shift", [0, 3])
def test_attention_by_its_definition(rng, height, width, shift):
    """Among all pixels of the map at once: those of other windows have the weight zero."""
    heads, channels = 2, 6
    module = WindowAttention(heads, shift, STATIC)
    x = rng.normal(size=(2, height, width, channels))
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.float32(x), 1.0)["params"]
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
    y = jit(module.apply)({"params": jax.tree.map(np.float32, params)}, jnp.float32(x), 1.0)

    pixels = x.reshape(2, -1, channels)
    qkv = pixels @ params["qkv"]["kernel"] + params["qkv"]["bias"]
    query, key, value = np.moveaxis(qkv.reshape(2, -1, 3, heads, channels // heads), (2, 3), (0, 2))
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(channels // heads)
    row, column = np.divmod(np.arange(height * width), width)
    offsets = [axis[:, None] - axis for axis in (row, column)]
    table = params["relative_position_bias_table"].reshape(heads, 13, 13)
    scores += table[:, np.clip(offsets[0] + 6, 0, 12), np.clip(offsets[1] + 6, 0, 12)]
    for axis, length in ((row, height), (column, width)):
        window = (axis - (shift if length > 7 else 0)) // 7
        scores = np.where(window[:, None] == window, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    expected = (weights @ value).swapaxes(1, 2).reshape(2, -1, channels)
    expected = expected @ params["proj"]["kernel"] + params["proj"]["bias"]
    np.testing.assert_allclose(y, expected.reshape(y.shape), rtol=1e-4, atol=1e-4)


def test_odd_sizes_are_filled_up_with_zeros(rng):
    """Images to whole patches, and maps to even sides before merging."""
    images = jnp.float32(rng.normal(size=(1, 9, 8, 3)))
    module = PatchEmbed(5, STATIC)
    padded = jnp.pad(images, ((0, 0), (0, 3), (0, 0), (0, 0)))
    params = module.init(jax.random.key(0), images)
    y = module.apply(params, images)
    assert y.shape == (1, 3, 2, 5)
    np.testing.assert_array_equal(y, module.apply(params, padded))

    merging = PatchMerging(STATIC)
    params = merging.init(jax.random.key(0), y, 1.0)
    merged = merging.apply(params, y, 1.0)
    assert merged.shape == (1, 2, 1, 10)
    padded = jnp.pad(y, ((0, 0), (0, 1), (0, 0), (0, 0)))
    np.testing.assert_array_equal(merged, merging.apply(params, padded, 1.0))


def test_drop_path_grows_over_the_blocks():
    rates = {}

    def record(next_call, args, kwargs, context):
        if isinstance(context.module, DropPath):
            rates.setdefault(context.module.path[0], []).append(context.module.rate)
        return next_call(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes_of(create_model("swin_tiny", drop_path_rate=0.22))
    assert len(rates) == 12
    for place, pair in enumerate(rates.values()):
        assert pair == [pytest.approx(0.02 * place)] * 2


def test_initial_values():
    """Linear layers and tables as published; an even mix of experts as a static kernel."""
    model = tiny(embed_dim=32, depths=(1,), num_experts=4)
    params = init_variables(model, jax.random.key(0))["params"]
    block = params["layers_0_blocks_0"]
    assert block["attn"]["relative_position_bias_table"].std() == pytest.approx(0.02, rel=0.2)
    for layer in (block["attn"]["qkv"], block["mlp"]["fc2"]):
        assert layer["experts"].mean(axis=0).std() == pytest.approx(0.02, rel=0.1)
        assert not layer["bias"].any()
    assert params["head"]["kernel"].std() == pytest.approx(0.02, rel=0.1)
    assert params["patch_embed"]["proj"]["kernel"].std() == pytest.approx(1 / 12, rel=0.1)
