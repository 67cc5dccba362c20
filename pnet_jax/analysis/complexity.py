"""What a dynamic layer costs against the static one in its place (arXiv 2306.14525, section 3.3).

The paper's claim: with K experts, parameters grow by about K and multiply-adds by about 1.
"""

from typing import NamedTuple

from pnet_jax.analysis.count import Count, Layer


class Ratio(NamedTuple):
    """A dynamic layer or a whole network beside its static form."""

    name: str
    kind: str
    num_experts: int
    static_params: int
    params: int
    static_macs: int
    macs: int

    @property
    def params_ratio(self) -> float:
        return self.params / self.static_params

    @property
    def macs_ratio(self) -> float:
        return self.macs / self.static_macs


def ratios(counted: Count) -> list[Ratio]:
    """A ratio for each dynamic layer, in order; none for a static network.

    The static form has one expert, neither a router nor anything to mix, and the same convolution.
    """
    return [_ratio(layer) for layer in counted.layers if layer.num_experts is not None]


def network_ratio(counted: Count) -> Ratio:
    """The whole network, its static layers included, against its static form."""
    rows = ratios(counted)
    return Ratio(
        name="whole network",
        kind="",
        num_experts=max(row.num_experts for row in rows),
        static_params=counted.params - sum(row.params - row.static_params for row in rows),
        params=counted.params,
        static_macs=counted.macs.total - sum(row.macs - row.static_macs for row in rows),
        macs=counted.macs.total,
    )


def _ratio(layer: Layer) -> Ratio:
    assert layer.num_experts is not None
    one_expert = layer.expert_params // layer.num_experts
    return Ratio(
        name=layer.name,
        kind=layer.kind,
        num_experts=layer.num_experts,
        static_params=layer.params - layer.router_params - layer.expert_params + one_expert,
        params=layer.params,
        static_macs=layer.macs.conv_linear,
        macs=layer.macs.total,
    )
