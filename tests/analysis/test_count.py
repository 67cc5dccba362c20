"""Parameters and multiply-accumulates: by hand for small networks, as published for the large."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pnet_jax.analysis.count import Macs, count_macs, count_parameters
from pnet_jax.models import create_model
from pnet_jax.models.dynamic import DynamicConv
from pnet_jax.models.layers import Conv

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


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("parameternet_300m", "parameternet_300m_official"),
        ("parameternet_600m", "parameternet_600m_official"),
        ("ghostnet_300m", "ghostnet_300m"),
        ("resnet50", "resnet50"),
        ("efficientnetv2_b0", "efficientnetv2_b0"),
    ],
)
def test_macs_as_published(name, published):
    """To the digit, with the published code's router."""
    fields = {"routing": "sigmoid_linear"} if name.startswith("parameternet") else {}
    expected = PUBLISHED[published]
    assert expected["resolution"] == 224
    assert count_macs(create_model(name, **fields), 224) == Macs(**expected["macs"])


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
