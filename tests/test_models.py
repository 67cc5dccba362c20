"""Networks by name, and their fresh variables (pnet_jax/models/__init__.py)."""

import inspect
import itertools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from pnet_jax.models import create_model, has_batch_norm, init_variables, list_models
from pnet_jax.models.ghostnet import STAGES_300M, STAGES_600M, GhostNet

TINY = {"num_classes": 1500, "stages": STAGES_300M[:1], "width": 0.5}

DYNAMIC = [
    name for name in list_models() if getattr(create_model(name), "num_experts", None) is not None
]


def test_list_models():
    assert list_models() == sorted(list_models())
    assert set(list_models()) >= {
        *("ghostnet_300m", "ghostnet_600m", "parameternet_300m", "parameternet_600m"),
        *("efficientnetv2_b0", "efficientnetv2_b1", "efficientnetv2_b2", "efficientnetv2_b3"),
        *("efficientnetv2_s", "efficientnetv2_b0_dynamic", "efficientnet_lite0", "resnet50"),
        *("ghostnet_100", "ghostnet_130", "ghostnet_300m_reparam"),
        *("swin_300m", "swin_300m_dynamic", "swin_1g", "swin_2g"),
        *("swin_tiny", "swin_small", "swin_base"),
    }


@pytest.mark.parametrize("name", list_models())
def test_every_network_takes_what_every_configuration_sets(name):
    """And the temperature of routing, which a static network ignores."""
    fields = {"drop_rate": 0.1, "drop_path_rate": 0.1}
    if has_batch_norm(name):
        fields |= {"bn_groups": 2, "bn_statistics": "running"}
    model = create_model(name, dtype=jnp.bfloat16, **fields)
    assert {field: getattr(model, field) for field in fields} == fields
    call = inspect.signature(type(model).__call__).parameters
    assert {"images", "train", "temperature"} <= call.keys()


def test_create_model_defaults():
    small, large = create_model("ghostnet_300m"), create_model("parameternet_600m")
    assert (small.stages, small.width, small.act) == (STAGES_300M, 1.45, nn.relu)
    assert (large.stages, large.width, large.act) == (STAGES_600M, 1.9, nn.hard_swish)
    assert (small.num_experts, large.num_experts) == (None, 4)
    assert (large.routing, large.routing_ratio, large.drop_rate) == ("softmax_mlp", 0.25, 0.2)
    assert (large.num_classes, large.dtype, large.bn_groups) == (1000, jnp.float32, 1)


def test_create_model_overrides():
    fields = {
        "width": 0.5,
        "num_experts": 2,
        "routing": "sigmoid_linear",
        "routing_ratio": 1.0,
        "drop_rate": 0.0,
        "drop_path_rate": 0.1,
        "bn_groups": 8,
        "bn_statistics": "running",
        "form": "grouped",
    }
    model = create_model("parameternet_300m", num_classes=7, dtype=jnp.bfloat16, **fields)
    assert {name: getattr(model, name) for name in fields} == fields
    assert (model.num_classes, model.dtype) == (7, jnp.bfloat16)


@pytest.mark.parametrize(
    ("name", "overrides", "sentence"),
    [
        (
            "parameternet_300",
            {},
            "There is no model 'parameternet_300'; did you mean 'parameternet_300m'?",
        ),
        (
            "vit",
            {},
            f"There is no model 'vit'; there are {', '.join(list_models())}.",
        ),
        (
            "parameternet_300m",
            {"num_expert": 3},
            "parameternet_300m has no field 'num_expert'; did you mean 'num_experts'?",
        ),
        (
            "ghostnet_600m",
            {"num_experts": 4},
            "ghostnet_600m is static and has no experts; leave num_experts unset, or take one of "
            f"{', '.join(DYNAMIC)}.",
        ),
        (
            "resnet50",
            {"num_experts": 4},
            "resnet50 is static and has no experts; leave num_experts unset, or take one of "
            f"{', '.join(DYNAMIC)}.",
        ),
        (
            "resnet50",
            {"routing": "softmax_mlp"},
            "resnet50 has no field 'routing'; there are bn_groups, bn_statistics, drop_path_rate, "
            "drop_rate, dtype, num_classes, remat, width.",
        ),
        (
            "parameternet_300m",
            {"routing": "softmax"},
            "There is no routing 'softmax'; choose one of softmax_mlp, softmax_linear, "
            "sigmoid_linear.",
        ),
    ],
)
def test_create_model_refuses_in_a_sentence(name, overrides, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole sentence is compared
        create_model(name, **overrides)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("name", "field"),
    [
        *(("ghostnet_300m", field) for field in ("stages", "act", "parent")),
        *(("swin_tiny", field) for field in ("embed_dim", "depths", "num_heads", "bn_groups")),
    ],
)
def test_what_makes_the_network_is_not_to_be_overridden(name, field):
    with pytest.raises(ValueError, match=f"{name} has no field '{field}'"):
        create_model(name, **{field: None})


def test_has_batch_norm():
    assert has_batch_norm("parameternet_600m")
    assert not has_batch_norm("swin_tiny")


@pytest.fixture(scope="module")
def model():
    return GhostNet(num_experts=4, **TINY)


@pytest.fixture(scope="module")
def variables(model):
    return init_variables(model, jax.random.key(0))


def test_init_variables_has_the_shapes_of_init(model, variables):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert (
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables) == shapes
    )


def test_init_variables_has_the_distribution_of_init(model, variables):
    """Leaf by leaf, the standard deviation of what `model.init` draws, and its mean of zero."""

    def init(key):
        return model.init(key, jnp.zeros((1, 32, 32, 3)))["params"]

    init = jax.jit(init, compiler_options={"xla_backend_optimization_level": 0})
    expected = traverse_util.flatten_dict(init(jax.random.key(1)), sep="/")
    params = traverse_util.flatten_dict(variables["params"], sep="/")
    drawn = [path for path in params if path.split("/")[-1] in ("kernel", "experts")]
    assert len(drawn) == 20
    for path, leaf in params.items():
        if path in drawn:
            error = 5 / leaf.size**0.5
            assert leaf.std() == pytest.approx(float(expected[path].std()), rel=error), path
            assert abs(leaf.mean()) < error * expected[path].std(), path
        else:
            np.testing.assert_array_equal(leaf, expected[path], err_msg=path)


def test_init_variables_starts_statistics_at_zero_and_one(variables):
    for path, leaf in traverse_util.flatten_dict(variables["batch_stats"]).items():
        np.testing.assert_array_equal(leaf, {"mean": 0.0, "var": 1.0}[path[-1]])


def test_init_variables_shares_nothing_between_leaves(variables):
    """No value of one array returns in another, and arrays of one size do not correlate."""
    drawn = [np.ravel(leaf) for leaf in jax.tree.leaves(variables["params"]) if np.std(leaf) > 0]
    standard = [leaf / leaf.std() for leaf in drawn]
    pairs = [pair for pair in itertools.combinations(standard, 2) if pair[0].size == pair[1].size]
    assert len(pairs) > 10
    for a, b in pairs:
        if a.size >= 16:
            assert abs(np.corrcoef(a, b)[0, 1]) < 4 / a.size**0.5
        assert not np.array_equal(a, b)
    # The head and the classifier are cut one after the other.
    a, b = (np.ravel(variables["params"][name]["kernel"]) for name in ("conv_head", "classifier"))
    size = min(a.size, b.size)
    for part in (b[:size], b[-size:]):
        assert abs(np.corrcoef(a[:size], part)[0, 1]) < 4 / size**0.5


def test_init_variables_is_deterministic_in_its_key(model, variables):
    again, other = (init_variables(model, jax.random.key(seed)) for seed in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    for name in ("conv_head", "classifier"):
        assert (
            variables["params"][name]["kernel"] != other["params"][name]["kernel"]
        ).mean() > 0.99


def test_init_variables_leaves_init_as_it_was(model, variables, key):
    """Drawing from one stream ends with the function."""
    image = jnp.zeros((1, 4, 4, 3))
    layer = nn.Dense(5, kernel_init=nn.initializers.lecun_normal())
    before = layer.init(key, image)
    init_variables(model, key)
    jax.tree.map(np.testing.assert_array_equal, before, layer.init(key, image))


@pytest.mark.slow
def test_the_largest_network_starts_within_15_seconds_on_one_core():
    """Process start, imports, compilation and values; no compilation cache.

    CPU seconds, which on an idle core are the seconds of the clock.
    """
    code = """
import os, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax
from pnet_jax.models import create_model, init_variables
variables = init_variables(create_model("parameternet_600m"), jax.random.key(0))
jax.block_until_ready(variables)
print(sum(leaf.size for leaf in jax.tree.leaves(variables["params"])), time.process_time())
"""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system cannot bind a process to one core")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    parameters, seconds = done.stdout.split()
    assert int(parameters) == 41_943_294
    assert float(seconds) < 15
