"""Published numbers are complete, agree with each other, and cost what their papers print."""

import pytest

from pnet_jax.analysis.points import cost
from pnet_jax.analysis.published import EFFICIENTNETV2, EXPERTS, NETWORKS, PARAMETERNET, SWIN
from pnet_jax.models import list_models

# Parameters and multiply-adds, both in millions, as the sources print them.
PRINTED = {
    "ghostnet_300m": (8.6, 289),
    "ghostnet_600m": (19.8, 579),
    "parameternet_300m": (15.7, 298),
    "parameternet_600m": (34.5, 599),
    "swin_tiny": (28, 4500),
    "swin_small": (50, 8700),
    "swin_base": (88, 15400),
    "efficientnetv2_b0": (7.1, 720),
    "efficientnetv2_b1": (8.1, 1200),
    "efficientnetv2_b2": (10.1, 1700),
    "efficientnetv2_b3": (14.4, 3000),
    "efficientnetv2_s": (21.5, 8400),
}


def test_every_network_has_a_number_and_a_source():
    for entry in NETWORKS:
        assert entry.source in (PARAMETERNET, SWIN, EFFICIENTNETV2)
        assert entry.top1_1k is not None or entry.gain is not None
        for top1 in (entry.top1_1k, entry.top1_22k):
            assert top1 is None or 70 < top1 < 90
        # A difference is given only where the accuracies are not.
        assert entry.gain is None or (entry.top1_1k, entry.top1_22k) == (None, None)
    gains = [(e.model, e.source) for e in NETWORKS if e.gain_22k is not None]
    assert len(gains) == len(dict(gains)) == 12


def test_gains():
    gains = {entry.model: entry.gain_22k for entry in NETWORKS if entry.gain_22k is not None}
    assert gains == {
        "ghostnet_300m": -0.6,
        "ghostnet_600m": -0.3,
        "parameternet_300m": 1.9,
        "parameternet_600m": 2.6,
        "swin_300m": -2.2,
        "swin_300m_dynamic": 2.2,
        "swin_tiny": -0.3,
        "swin_small": 0.0,
        "swin_base": 1.7,
        "efficientnetv2_b0": -1.1,
        "efficientnetv2_b0_dynamic": 1.7,
        "efficientnetv2_s": 1.0,
    }
    # One and four experts are networks of the accuracy figure, too.
    assert {(e.num_experts, e.gain) for e in EXPERTS} == {
        (1, gains["ghostnet_300m"]),
        (4, gains["parameternet_300m"]),
        (8, 1.7),
    }


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(
            entry,
            id=entry.model,
            # Deep networks take seconds to trace.
            marks=[pytest.mark.slow] if PRINTED[entry.model][1] > 2000 else [],
        )
        for entry in NETWORKS
        if entry.model in list_models() and entry.top1_1k is not None
    ],
)
def test_the_network_of_this_project_is_the_published_one(entry):
    """Parameters as printed; multiply-adds within what the sources' counters differ by."""
    params, macs = PRINTED[entry.model]
    found = cost(entry.model, entry.image_size, entry.fields)
    assert found.params / 1e6 == pytest.approx(params, abs=0.5 if params > 20 else 0.06)
    assert found.macs / 1e6 == pytest.approx(macs, rel=0.05)


def test_experts_have_the_printed_parameters():
    found = [cost(entry.model, 224, entry.fields) for entry in EXPERTS]
    assert [f"{point.params / 1e6:.1f}" for point in found] == ["8.6", "15.7", "25.2"]
    assert [point.num_experts for point in found] == [1, 4, 8]
