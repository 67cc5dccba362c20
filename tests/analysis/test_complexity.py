"""Dynamic against static, by the paper's formulas, and for whole networks."""

import jax.numpy as jnp
import pytest
from flax import linen as nn

from pnet_jax.analysis.complexity import Ratio, network_ratio, ratios
from pnet_jax.analysis.count import count
from pnet_jax.models import create_model
from pnet_jax.models.dynamic import DynamicConv
from pnet_jax.models.layers import Conv


class TwoLayers(nn.Module):
    """A static 1x1 convolution and a dynamic 3x3 with the paper's MLP of hidden width C."""

    form: str = "auto"
    num_experts: int = 4

    @nn.compact
    def __call__(self, x):
        x = Conv(8, use_bias=True, name="static")(x)
        dynamic = DynamicConv(
            16, 3, num_experts=4, routing_ratio=1.0, form=self.form, name="dynamic"
        )
        return jnp.mean(dynamic(x), axis=(1, 2))


def test_a_layer_by_the_papers_formulas():
    """Section 3.3, with the biases of the router that the paper leaves out."""
    kernel, inputs, experts, pixels = 9 * 8 * 16, 8, 4, 10 * 10
    router = inputs * inputs + inputs + inputs * experts + experts
    (row,) = ratios(count(TwoLayers(), 10))
    assert row == Ratio(
        name="dynamic",
        kind="dynamic conv 3x3",
        num_experts=4,
        static_params=kernel,
        params=experts * kernel + router,
        static_macs=pixels * kernel,
        macs=pixels * kernel + experts * kernel + inputs * inputs + inputs * experts,
    )
    assert row.params_ratio == pytest.approx(4 + router / kernel)
    assert row.macs_ratio == pytest.approx(1 + 4 / pixels + 96 / (pixels * kernel))


def test_the_whole_network_keeps_its_static_layers():
    counted = count(TwoLayers(), 10)
    (row,), whole = ratios(counted), network_ratio(counted)
    static = 3 * 8 + 8
    assert (whole.static_params, whole.params) == (static + row.static_params, counted.params)
    assert whole.static_macs == 100 * 24 + row.static_macs
    assert whole.macs == counted.macs.total


def test_a_static_network_has_no_ratios():
    class Static(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Conv(8)(x)

    assert ratios(count(Static(), 8)) == []


@pytest.mark.parametrize("num_experts", [4, 8])
def test_parameternet_as_the_paper_says(num_experts):
    """R_param about K in every layer, R_FLOPs about 1; the static form is GhostNet to the unit."""
    model = create_model("parameternet_300m", num_experts=num_experts, routing="sigmoid_linear")
    counted = count(model, 224)
    rows, whole = ratios(counted), network_ratio(counted)
    assert len(rows) == 76
    for row in rows:
        assert num_experts <= row.params_ratio < 1.15 * num_experts, row.name
        assert 1 <= row.macs_ratio < 1 + 0.03 * num_experts, row.name
    assert (whole.static_params, whole.static_macs) == (8_633_106, 282_816_640)
    assert whole.macs_ratio == pytest.approx(1.033 if num_experts == 4 else 1.067, abs=1e-3)
