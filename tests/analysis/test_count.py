"""Parameters and multiply-accumulates: by hand for small networks, as published for the large."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pnet_jax.analysis.count import Layer, Macs, count, count_macs, count_parameters
from pnet_jax.models import create_model, list_models
from pnet_jax.models.dynamic import DynamicConv
from pnet_jax.models.layers import BatchNorm, Conv

PUBLISHED = json.loads(
    (pathlib.Path(__file__).parents[1] / "parity" / "published_counts.json").read_text()
)


class Static(nn.Module):
    """A strided, a grouped and a depthwise convolution, and a linear layer."""

    @nn.compact
    def __call__(self, x):
        x = Conv(8, kernel_size=3, strides=2)(x)
        x = Conv(12, kernel_size=3, groups=4)(x)
        x = Conv(12, kernel_size=5, groups=12)(x)
        return nn.Dense(10, name="classifier")(x.mean(axis=(1, 2)))


class Dynamic(nn.Module):
    """A 1x1 and a depthwise dynamic convolution with five experts."""

    num_experts: int = 5
    routing: str = "softmax_mlp"
    form: str = "auto"

    @nn.compact
    def __call__(self, x):
        fields = {
            "num_experts": self.num_experts,
            "routing": self.routing,
            "form": self.form,
        }
        x = DynamicConv(8, **fields)(x)
        return DynamicConv(8, kernel_size=3, strides=2, groups=8, **fields)(x)


class Tokens(nn.Module):
    """A convolution, attention with a learnt bias, a dynamic linear layer, a classifier."""

    num_experts: int = 4
    form: str = "auto"

    @nn.compact
    def __call__(self, images):
        x = BatchNorm(name="bn")(
            Conv(6, kernel_size=2, strides=2, name="stem")(images), train=False
        )
        x = Mix(name="attn")(x)
        fields = {"num_experts": self.num_experts, "routing": "sigmoid_linear", "form": self.form}
        x = DynamicConv(5, name="fc", **fields)(x)
        return nn.Dense(7, name="head")(x.mean(axis=(1, 2)))


class Mix(nn.Module):
    """Attention of all pixels without linear layers, plus a learnt bias for each."""

    @nn.compact
    def __call__(self, x):
        tokens = x.reshape(1, -1, x.shape[-1])
        scores = jnp.einsum("nqd,nkd->nqk", tokens, tokens)
        y = nn.softmax(scores) @ tokens
        return y.reshape(x.shape) + self.param("bias", nn.initializers.zeros, x.shape[1:])


def test_static_by_hand():
    """Per output pixel and channel, the kernel's window over the inputs of its group."""
    parts = (8 * 8 * 8 * 27, 8 * 8 * 12 * 9 * 2, 8 * 8 * 12 * 25, 12 * 10)
    assert count_macs(Static(), 16) == Macs(conv_linear=sum(parts))
    assert count_macs(Static(), 15) == count_macs(Static(), 16)  # odd sizes round up
    assert count_macs(Static(), 32).conv_linear == 4 * sum(parts[:3]) + parts[3]


def test_dynamic_by_hand():
    """The convolution once, not once an expert; mixing the kernels; the router."""
    convolutions = 16 * 16 * 8 * 3 + 8 * 8 * 8 * 9
    mixing = 5 * (3 * 8 + 9 * 8)
    hidden = (3 * 1 + 1 * 5) + (8 * 2 + 2 * 5)
    assert count_macs(Dynamic(), 16) == Macs(convolutions, mixing, hidden)
    linear = Dynamic(num_experts=1, routing="sigmoid_linear")
    assert count_macs(linear, 16) == Macs(convolutions, 3 * 8 + 9 * 8, 3 + 8)


def test_total():
    assert Macs(conv_linear=5, mixing=3, routing=1).total == 9


def test_layers_by_hand():
    """In the order of the image, with everything that has parameters, and their sum."""
    counted = count(Tokens(), 8)
    stem, norm, mix, fc, head = counted.layers
    # 2 x 2 kernels at stride 2 with a padding of (2 - 1) // 2 = 0: 4 x 4 pixels.
    assert stem == Layer("stem", "conv 2x2/2", (4, 4, 6), 72, Macs(conv_linear=16 * 72))
    assert norm == Layer("bn", "BatchNorm", (), 12, Macs())
    assert mix == Layer("attn", "attention", (16, 6), 96, Macs(attention=2 * 16 * 16 * 6))
    assert fc == Layer(
        "fc",
        "dynamic conv 1x1",
        (4, 4, 5),
        4 * 30 + (6 * 4 + 4),
        Macs(conv_linear=16 * 30, mixing=4 * 30, routing=6 * 4),
        num_experts=4,
        expert_params=4 * 30,
        router_params=6 * 4 + 4,
    )
    assert head == Layer("head", "linear", (7,), 42, Macs(conv_linear=35))
    assert counted.params == 72 + 12 + 96 + 148 + 42
    assert counted.macs == Macs(1152 + 480 + 35, 120, 24, 3072)
    assert counted.macs == count_macs(Tokens(), 8)
    assert counted.activations == 16 * 6 + 16 * 5 + 7  # neither attention nor routing


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("parameternet_300m", "parameternet_300m_official"),
        ("parameternet_600m", "parameternet_600m_official"),
        *((name, name) for name in PUBLISHED if name in list_models() and name != "swin_tiny"),
    ],
)
def test_as_published(name, published):
    """To the unit, with the published code's router, in total and summed over layers."""
    fields = {"routing": "sigmoid_linear"} if name.startswith("parameternet") else {}
    expected = PUBLISHED[published]
    assert expected["resolution"] == 224
    counted = count(create_model(name, **fields), 224)
    assert counted.params == expected["params"]
    assert counted.macs == Macs(**expected["macs"])
    assert sum(layer.params for layer in counted.layers) == expected["params"]
    for purpose, macs in expected["macs"].items():
        assert sum(getattr(layer.macs, purpose) for layer in counted.layers) == macs
    dynamic = [layer for layer in counted.layers if layer.num_experts is not None]
    assert len(dynamic) == expected["dynamic_convs"]
    assert {layer.num_experts for layer in dynamic} <= {4}


@pytest.mark.skipif("swin_tiny" not in list_models(), reason="this project has no Swin")
def test_swin_tiny_as_published():
    """4.5G in its paper. The recorded figure counts `qkv` and `proj` for one window of each map.

    It took the windows, which these layers see as a batch in PyTorch, for images.
    """
    counted = count(create_model("swin_tiny"), 224)
    assert counted.params == PUBLISHED["swin_tiny"]["params"]
    assert counted.macs == Macs(conv_linear=4_350_425_088, attention=140_141_568)
    assert round(counted.macs.total / 1e9, 1) == 4.5
    one_window = sum(
        layer.macs.conv_linear // (math.prod(layer.output_shape[:-1]) // 49)
        if layer.name.split("/")[-1] in ("qkv", "proj") and "attn" in layer.name
        else layer.macs.conv_linear
        for layer in counted.layers
    )
    assert one_window == PUBLISHED["swin_tiny"]["macs"]["conv_linear"]


def test_macs_of_the_other_networks():
    """The paper prints 579M and 599M for 600M; it counts a little more than what is counted here.

    The static network has the convolutions of the dynamic one.
    """
    assert count_macs(create_model("ghostnet_600m"), 224) == Macs(conv_linear=570_111_528)
    with_mlp = count_macs(create_model("parameternet_600m"), 224)
    assert with_mlp == Macs(conv_linear=570_111_528, mixing=19_412_456, routing=7_553_735)
    assert with_mlp.total == 597_077_719


def test_macs_of_the_dynamic_efficientnet():
    """The convolutions of the static one; the experts add 3.4% to its multiply-accumulates."""
    counted = count_macs(create_model("efficientnetv2_b0_dynamic"), 224)
    assert counted == Macs(conv_linear=718_086_176, mixing=17_998_464, routing=6_118_983)


def test_count_parameters_of_arrays_and_shapes():
    tree = {"a": np.zeros((3, 4)), "b": [jnp.zeros(5), jax.ShapeDtypeStruct((), jnp.float32)]}
    assert count_parameters(tree) == 18
    assert count_parameters({}) == 0
