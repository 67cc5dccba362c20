"""The mapping between Flax trees and PyTorch state dicts, against the published lists of keys."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.convert import from_torch, to_torch
from pnet_jax.errors import UserError
from pnet_jax.models import create_model

KEYS = pathlib.Path(__file__).parent.parent / "parity"
PUBLISHED = {
    "keys_parameternet_300m_official": ("parameternet_300m", {"routing": "sigmoid_linear"}),
    "keys_parameternet_600m_official": ("parameternet_600m", {"routing": "sigmoid_linear"}),
    "keys_ghostnet_300m": ("ghostnet_300m", {}),
    "keys_resnet50": ("resnet50", {}),
    "keys_efficientnetv2_b0": ("efficientnetv2_b0", {}),
    "keys_swin_tiny": ("swin_tiny", {}),
}
TINY = {"width": 0.1, "num_classes": 3}


def random_variables(name, **overrides):
    """Variables of the right shapes, every entry another number."""
    model = create_model(name, **overrides)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(s.dtype), shapes)


@pytest.mark.parametrize("file", PUBLISHED)
def test_names_and_shapes_are_the_published_ones(file):
    name, overrides = PUBLISHED[file]
    published = json.loads((KEYS / f"{file}.json").read_text())
    state_dict = to_torch(name, random_variables(name, **overrides))
    assert {key: list(tensor.shape) for key, tensor in state_dict.items()} == published


@pytest.mark.parametrize(
    "name", ["resnet50", "efficientnetv2_s", "efficientnetv2_b0_dynamic", "efficientnet_lite0"]
)
def test_round_trip_of_the_other_networks_is_bitwise(name):
    """With the number of classes read off the classifier, whatever it is called."""
    variables = random_variables(name, **TINY)
    back = from_torch(name, to_torch(name, variables), width=0.1)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_names_of_the_efficientnet_pytorch_packages_are_understood():
    """As they count: blocks through all stages, batch norms from 0, in a block that expands."""
    name = "efficientnet_lite0"
    variables = random_variables(name, **TINY)
    theirs = {
        "conv_stem": "_conv_stem",
        "bn1": "_bn0",
        "conv_head": "_conv_head",
        "bn2": "_bn1",
        "classifier": "_fc",
        "blocks.0.0.conv_dw": "_blocks.0._depthwise_conv",
        "blocks.0.0.bn1": "_blocks.0._bn1",
        "blocks.0.0.conv_pw": "_blocks.0._project_conv",
        "blocks.0.0.bn2": "_blocks.0._bn2",
    }
    blocks = [(stage, i) for stage, count in enumerate((2, 2, 3, 3, 4, 1), 1) for i in range(count)]
    for number, (stage, index) in enumerate(blocks, start=1):
        theirs |= {
            f"blocks.{stage}.{index}.{ours}": f"_blocks.{number}.{other}"
            for ours, other in {
                "conv_pw": "_expand_conv",
                "bn1": "_bn0",
                "conv_dw": "_depthwise_conv",
                "bn2": "_bn1",
                "conv_pwl": "_project_conv",
                "bn3": "_bn2",
            }.items()
        }
    foreign = {}
    for key, tensor in to_torch(name, variables).items():
        module, _, leaf = key.rpartition(".")
        foreign[f"{theirs[module]}.{leaf}"] = tensor
    back = from_torch(name, foreign, width=0.1)
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    foreign["_blocks.16._bn2.bias"] = np.zeros(1)
    with pytest.raises(UserError, match=r"unexpected: _blocks\.16\._bn2\.bias"):
        from_torch(name, foreign, width=0.1)


@pytest.mark.parametrize(
    ("name", "routing"),
    [
        ("ghostnet_600m", None),
        ("ghostnet_300m_reparam", None),
        *(("parameternet_300m", r) for r in ("softmax_mlp", "softmax_linear", "sigmoid_linear")),
        *(("swin_300m_dynamic", r) for r in ("softmax_mlp", "sigmoid_linear")),
    ],
)
def test_round_trip_is_bitwise(name, routing):
    overrides = TINY | ({"routing": routing} if routing else {})
    variables = {"batch_stats": {}} | random_variables(name, **overrides)
    back = from_torch(name, to_torch(name, variables), **overrides)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_two_layer_routers_are_a_sequential():
    state_dict = to_torch("parameternet_300m", random_variables("parameternet_300m", **TINY))
    routers = {key for key in state_dict if key.startswith("conv_stem.routing")}
    assert routers == {
        f"conv_stem.routing.{place}.{leaf}" for place in (0, 2) for leaf in ("weight", "bias")
    }


def test_kernel_axes():
    """A kernel's entry at (row, column, in, out) is PyTorch's at (out, in, row, column)."""
    variables = random_variables("parameternet_300m", routing="sigmoid_linear", **TINY)
    params = variables["params"]
    state_dict = to_torch("parameternet_300m", variables)
    experts = params["conv_stem"]["experts"]
    count, kh, kw, inputs, features = experts.shape
    published = state_dict["conv_stem.cond_conv.weight"].reshape(count, features, inputs, kh, kw)
    assert published[2, 1, 0, 1, 2] == experts[2, 1, 2, 0, 1]
    kernel = params["blocks_3_0"]["se"]["conv_reduce"]["kernel"]
    assert state_dict["blocks.3.0.se.conv_reduce.weight"][1, 2, 0, 0] == kernel[0, 0, 2, 1]
    table = np.arange(169.0).reshape(1, 169)
    tree = {"layers_0_blocks_0": {"attn": {"relative_position_bias_table": table}}}
    (named,) = to_torch("swin_tiny", {"params": tree}).items()
    assert named[0] == "layers.0.blocks.0.attn.relative_position_bias_table"
    np.testing.assert_array_equal(named[1], table.T)
    kernel = params["classifier"]["kernel"]
    assert state_dict["classifier.weight"][2, 5] == kernel[5, 2]


def test_every_difference_is_listed():
    name, overrides = "parameternet_300m", TINY | {"routing": "sigmoid_linear"}
    state_dict = to_torch(name, random_variables(name, **overrides))
    del state_dict["bn1.weight"]
    state_dict["bn1.bias"] = np.zeros(5, np.float32)
    state_dict["surplus.weight"] = np.zeros(1, np.float32)
    with pytest.raises(UserError) as caught:
        from_torch(name, state_dict, **overrides)
    sentence = str(caught.value)
    assert "3 differences" in sentence
    assert "missing: bn1.weight" in sentence
    assert "wrong shape: bn1.bias is [5]" in sentence
    assert "unexpected: surplus.weight" in sentence


def test_number_of_classes_is_read_off_the_classifier():
    variables = random_variables("ghostnet_300m", width=0.1, num_classes=7)
    back = from_torch("ghostnet_300m", to_torch("ghostnet_300m", variables), width=0.1)
    assert back["params"]["classifier"]["bias"].shape == (7,)
    variables = random_variables("swin_300m_dynamic", width=0.1, num_classes=6)
    back = from_torch("swin_300m_dynamic", to_torch("swin_300m_dynamic", variables), width=0.1)
    assert back["params"]["head"]["bias"].shape == (6,)


def test_tables_computed_from_the_window_are_no_weights():
    """Old files of Swin have them; timm leaves them out, and so they are unexpected here."""
    state_dict = to_torch("swin_tiny", random_variables("swin_tiny", width=1 / 32))
    state_dict["layers.0.blocks.0.attn.relative_position_index"] = np.zeros((49, 49), np.int64)
    with pytest.raises(UserError, match=r"unexpected: layers.0.blocks.0.attn.relative_position"):
        from_torch("swin_tiny", state_dict, width=1 / 32)


def test_unknown_model():
    with pytest.raises(UserError, match="no model 'resnet9000'"):
        to_torch("resnet9000", {})
    with pytest.raises(UserError, match="did you mean 'ghostnet_300m'"):
        from_torch("ghostnet_300", {})
