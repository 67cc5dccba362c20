"""The figures: published is hollow, own is solid, data are apart, and nothing overlaps."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

from pnet_jax.analysis import figures
from pnet_jax.analysis.points import (
    IMAGENET,
    Accuracy,
    Cost,
    Gain,
    Network,
    published,
    published_experts,
)
from pnet_jax.analysis.published import NETWORKS

# Of all published networks, in G and about right: the layout depends on them.
MACS = {
    "ghostnet_300m": 0.283,
    "ghostnet_600m": 0.570,
    "parameternet_300m": 0.292,
    "parameternet_600m": 0.590,
    "swin_300m": 0.286,
    "swin_300m_dynamic": 0.293,
    "swin_tiny": 4.49,
    "swin_small": 8.74,
    "swin_base": 15.43,
    "efficientnetv2_b0": 0.72,
    "efficientnetv2_b0_dynamic": 0.74,
    "efficientnetv2_b1": 1.2,
    "efficientnetv2_b2": 1.7,
    "efficientnetv2_b3": 3.0,
    "efficientnetv2_s": 8.4,
}


def cost_of(model, image_size, fields):
    return Cost(9_000_000, int(1e9 * MACS[model]), fields.get("num_experts", 1))


def own(label: str, top1: float, *, data: str = "emoji, 96 classes") -> Accuracy:
    network = Network(
        label, "ParameterNet", "parameternet_300m", 4, 2_721_396, 4_936_265, data, None
    )
    return Accuracy(network, label == "finetune", top1)


@pytest.fixture(scope="module")
def everything():
    return published(cost_of, MACS)


def faces(axes) -> list[str]:
    """The fillings of the markers, which are single points without a line."""
    return [
        line.get_markerfacecolor() for line in axes.get_lines() if line.get_linestyle() == "None"
    ]


def visible_texts(figure: Figure):
    figure.draw_without_rendering()
    texts = [text for axes in figure.axes for text in axes.texts if text.get_text()]
    return texts + [text for legend in figure.legends for text in legend.get_texts()]


def test_all_networks_are_known_here():
    assert set(MACS) == {entry.model for entry in NETWORKS}


def test_published_is_hollow_and_own_is_solid_and_apart(everything):
    accuracies, gains = everything
    runs = [own("scratch", 10.6), own("finetune", 14.8), own("large", 80.0, data=IMAGENET)]
    figure = figures.accuracy_against_macs([*accuracies, *runs], gains)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Top-1, % (ImageNet-1K)",
        "Gain from pretraining, points (ImageNet-1K)",
        "Top-1, % (emoji, 96 classes)",
    ]
    top1, gain, emoji = figure.axes
    assert faces(top1) == ["white"] * len(accuracies) + ["#D55E00"]
    assert faces(gain) == ["white"] * len(gains)
    assert faces(emoji) == ["#D55E00", "#D55E00"]
    legend, caption = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "GhostNet",
        "from scratch",
        "ParameterNet",
        "pretrained",
        "Swin",
        "published",
        "EfficientNetV2",
        "this project",
    ]
    (text,) = (text.get_text() for text in caption.get_texts())
    for source in ("arXiv 2306.14525", "microsoft/Swin-Transformer", "google/automl"):
        assert source in text.replace("\n", " ")


def test_lines_are_told_apart_without_colour(everything):
    accuracies, gains = everything
    top1 = figures.accuracy_against_macs(accuracies, gains).axes[0]
    lines = [line for line in top1.get_lines() if line.get_linestyle() != "None"]
    # From scratch and pretrained for each of four families.
    assert sorted(line.get_linestyle() for line in lines) == ["-"] * 4 + ["--"] * 4
    by_color: dict[str, set[str]] = {}
    for line in top1.get_lines():
        if line.get_linestyle() == "None":
            by_color.setdefault(line.get_markeredgecolor(), set()).add(line.get_marker())
    assert len(by_color) == 4
    assert sorted(itertools.chain(*by_color.values())) == ["D", "^", "o", "s"]
    swin = next(line for line in lines if line.get_color() == "#0072B2")
    np.testing.assert_allclose(swin.get_xdata(), [4.49, 8.74, 15.43])
    np.testing.assert_allclose(swin.get_ydata(), [81.2, 83.2, 83.5])


@pytest.mark.parametrize("kind", ["macs", "latency", "experts"])
def test_no_text_is_cut_or_on_another(everything, kind):
    accuracies, gains = everything
    if kind == "macs":
        runs = [own("scratch", 10.6), own("finetune", 14.8)]
        figure = figures.accuracy_against_macs([*accuracies, *runs], gains)
    elif kind == "latency":
        latencies = {name: 70 * macs**0.8 for name, macs in MACS.items()}
        figure = figures.accuracy_against_latency(accuracies, latencies, "one core, batch 1")
    else:
        run = Gain(own("finetune", 14.8).network, 4.2)
        figure = figures.experts_ablation([*published_experts(cost_of), run])
    texts = visible_texts(figure)
    assert len(texts) > 8
    # A pixel of slack: boxes of text have some air in them.
    boxes = [(text.get_text(), text.get_window_extent().padded(-1.0)) for text in texts]
    for (a, box), (b, other) in itertools.combinations(boxes, 2):
        assert not box.overlaps(other), (a, b)
    width, height = figure.bbox.size
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.x1 <= width, text
        assert box.y0 >= 0, text
        assert box.y1 <= height, text


def test_latency_shows_what_was_timed(everything):
    figure = figures.accuracy_against_latency(
        everything[0], {"ghostnet_300m": 20.0, "parameternet_300m": 24.0}, "a CPU"
    )
    (axes,) = figure.axes
    assert axes.get_xlabel() == "latency of one image, ms (log scale)"
    assert faces(axes) == ["white"] * 4
    assert "Latency: measured by this project, a CPU." in (
        figure.legends[1].get_texts()[0].get_text().replace("\n", " ")
    )


def test_experts_are_categories_with_their_parameters():
    run = Gain(own("finetune", 14.8).network, 4.2)
    figure = figures.experts_ablation([*published_experts(cost_of), run])
    paper, project = figure.axes
    assert [label.get_text() for label in paper.get_xticklabels()] == [
        "static\n9.0M",
        "4 experts\n9.0M",
        "8 experts\n9.0M",
    ]
    assert [text.get_text() for text in paper.texts] == ["−0.6", "+1.9", "+1.7"]
    assert [text.get_text() for text in project.texts] == ["+4.2"]
    assert faces(paper) == ["white"] * 3
    assert faces(project) == ["#D55E00"]


def test_a_dollar_in_a_name_is_a_dollar():
    figure = figures.accuracy_against_macs([own("$a_b$", 10.0)], [])
    (text,) = figure.axes[0].texts
    assert text.get_text() == "$a_b$: parameternet_300m, from scratch"
    figure.draw_without_rendering()
