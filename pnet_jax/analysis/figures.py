"""The paper's figures: accuracy against cost, and what pretraining gains.

Published numbers are hollow and cited below the picture, runs of this project are solid, and what
was measured on different data is in different panels. Families differ in marker and colour, ways of
training in line, so that nothing depends on colour alone.
"""

import dataclasses
import logging
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pnet_jax.analysis.points import IMAGENET, Accuracy, Gain, Network

if TYPE_CHECKING:  # matplotlib takes a second to import: only drawing pays for it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design" (2008): told apart by all common kinds of colour vision.
_STYLES: dict[str, tuple[str, str]] = {
    "GhostNet": ("#E69F00", "o"),
    "ParameterNet": ("#D55E00", "s"),
    "Swin": ("#0072B2", "^"),
    "EfficientNetV2": ("#009E73", "D"),
    "other": ("#000000", "v"),
}
_FROM_SCRATCH: dict[str, Any] = {"linestyle": (0, (4, 2)), "linewidth": 1.2}
_PRETRAINED: dict[str, Any] = {"linestyle": "-", "linewidth": 1.8}
_GREY = "#666666"
_FONT_SIZE = 9.0
_INCHES_WIDE = 9.0
_CHARACTERS_WIDE = 150


@dataclasses.dataclass(frozen=True)
class _Axis:
    """The horizontal axis: what it shows of a network, and its name."""

    of: Callable[[Network], float]
    label: str


_MACS = _Axis(lambda network: network.macs / 1e9, "multiply-adds of one image, G (log scale)")


def accuracy_against_macs(accuracies: Sequence[Accuracy], gains: Sequence[Gain]) -> "Figure":
    """Accuracy against multiply-adds and, beside it, the gain from pretraining.

    Runs on other data than ImageNet-1K have panels of their own in a second row.
    """
    return _draw(accuracies, gains, _MACS, "Multiply-adds are traced from this project's networks.")


def accuracy_against_latency(
    accuracies: Sequence[Accuracy], latency_ms: Mapping[str, float], setting: str
) -> "Figure":
    """Accuracy against measured latency, of the networks that `latency_ms` names."""
    timed = [a for a in accuracies if a.network.model in latency_ms]
    axis = _Axis(lambda network: latency_ms[network.model], "latency of one image, ms (log scale)")
    return _draw(timed, [], axis, f"Latency: measured by this project, {setting}.")


def experts_ablation(gains: Sequence[Gain]) -> "Figure":
    """The gain from pretraining against the number of experts, a panel for each data set."""
    figure = _figure()
    groups = _by_data(gains)
    for axes, (data, group) in zip(_panels(figure, len(groups)), groups.items(), strict=True):
        counts = sorted({gain.network.num_experts for gain in group})
        for published in (True, False):
            chosen = [g for g in group if (g.network.source is not None) == published]
            chosen.sort(key=lambda gain: gain.network.num_experts)
            # The places are those of categories: 1, 4 and 8 side by side.
            places = [counts.index(gain.network.num_experts) for gain in chosen]
            heights = [gain.gain for gain in chosen]
            axes.plot(places, heights, color=_GREY, linewidth=1.0, zorder=1)
            for place, gain in zip(places, chosen, strict=True):
                _mark(axes, gain.network, place, gain.gain, pretrained=True)
                above = gain.gain >= 0
                axes.annotate(
                    f"{gain.gain:+.1f}",
                    (place, gain.gain),
                    xytext=(0, 9 if above else -9),
                    textcoords="offset points",
                    ha="center",
                    va="bottom" if above else "top",
                    fontsize=_FONT_SIZE,
                )
        ticks = []
        for experts in counts:
            sizes = {g.network.params for g in group if g.network.num_experts == experts}
            name = "static" if experts == 1 else f"{experts} experts"
            ticks.append("\n".join([name, *(f"{size / 1e6:.1f}M" for size in sorted(sizes))]))
        axes.set_xticks(range(len(counts)), ticks)
        axes.set_xlim(-0.5, len(counts) - 0.5)
        axes.margins(y=0.25)
        _style(axes, f"Gain from pretraining, points of top-1 ({data})", "experts, parameters")
        axes.axhline(0.0, color="#000000", linewidth=0.8, zorder=0)
    _finish(figure, [gain.network for gain in gains], "Parameters are traced.", ways=False)
    return figure


def _draw(
    accuracies: Sequence[Accuracy], gains: Sequence[Gain], axis: _Axis, note: str
) -> "Figure":
    figure = _figure()
    groups = _by_data(accuracies)
    gain_groups = _by_data(gains)
    names = list(dict.fromkeys([*groups, *gain_groups]))
    kinds = [(data, kind) for data in names for kind in (groups, gain_groups) if data in kind]
    for axes, (data, kind) in zip(_panels(figure, len(kinds)), kinds, strict=True):
        axes.set_xscale("log")
        if kind is groups:
            _draw_accuracies(axes, groups[data], axis)
            _style(axes, f"Top-1, % ({data})", axis.label)
        else:
            _draw_gains(axes, gain_groups[data], axis)
            _style(axes, f"Gain from pretraining, points ({data})", axis.label)
        _pad_and_tick(axes, [axis.of(point.network) for point in kind[data]])
    networks = [a.network for a in accuracies] + [g.network for g in gains]
    _finish(figure, networks, note, ways=True)
    return figure


def _draw_accuracies(axes: "Axes", accuracies: Sequence[Accuracy], axis: _Axis) -> None:
    lines: dict[tuple[str, bool, bool], list[Accuracy]] = {}
    for accuracy in accuracies:
        network = accuracy.network
        key = (network.family, accuracy.pretrained, network.source is not None)
        lines.setdefault(key, []).append(accuracy)
    for (family, pretrained, published), points in lines.items():
        points.sort(key=lambda point: point.network.macs)
        places = [axis.of(point.network) for point in points]
        if published:  # runs need not belong together
            axes.plot(
                places,
                [point.top1 for point in points],
                color=_STYLES[family][0],
                zorder=1,
                **(_PRETRAINED if pretrained else _FROM_SCRATCH),
            )
        for place, point in zip(places, points, strict=True):
            _mark(axes, point.network, place, point.top1, pretrained=pretrained)
    # A network has one label, at the higher of its points.
    named: dict[Network, Accuracy] = {}
    for point in sorted(accuracies, key=lambda point: point.top1):
        named[point.network] = point
    for network, point in named.items():
        _label(axes, network.label, axis.of(network), point.top1, above=True)


def _draw_gains(axes: "Axes", gains: Sequence[Gain], axis: _Axis) -> None:
    by_model = {gain.network.model: gain for gain in gains}
    axes.axhline(0.0, color="#000000", linewidth=0.8, zorder=0)
    for gain in gains:
        place = axis.of(gain.network)
        static = by_model.get(gain.static_model or "")
        if static is not None:
            axes.annotate(
                "",
                (place, gain.gain),
                xytext=(axis.of(static.network), static.gain),
                arrowprops={"arrowstyle": "->", "color": _GREY, "shrinkA": 6, "shrinkB": 6},
            )
        _mark(axes, gain.network, place, gain.gain, pretrained=True)
        _label(axes, gain.network.label, place, gain.gain, above=gain.gain > 0)


def _mark(axes: "Axes", network: Network, x: float, y: float, *, pretrained: bool) -> None:
    color, marker = _STYLES[network.family]
    axes.plot(
        [x],
        [y],
        linestyle="",
        marker=marker,
        markersize=7.5,
        markeredgecolor=color,
        markeredgewidth=2.0 if pretrained else 1.0,
        # Hollow is white, not transparent: no line shows through.
        markerfacecolor="white" if network.source is not None else color,
        zorder=2,
    )


def _label(axes: "Axes", text: str, x: float, y: float, *, above: bool) -> None:
    label = axes.annotate(
        text,
        (x, y),
        xytext=(0, 7 if above else -7),
        textcoords="offset points",
        ha="center",
        va="bottom" if above else "top",
        fontsize=_FONT_SIZE - 1,
        zorder=3,
    )
    label.set_parse_math(False)  # a "$" in a directory's name is a dollar


def _by_data(points: Sequence[Any]) -> dict[str, list[Any]]:
    """The points by what they were measured on, ImageNet-1K first."""
    groups: dict[str, list[Any]] = {}
    for point in sorted(points, key=lambda point: point.network.data != IMAGENET):
        groups.setdefault(point.network.data, []).append(point)
    return groups


def _figure() -> "Figure":
    # Matplotlib logs that it builds its font cache or finds no place for it: nobody's concern here.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.figure import Figure

    return Figure(layout="constrained")


def _panels(figure: "Figure", number: int) -> list["Axes"]:
    """So many axes, two in a row."""
    columns = min(number, 2)
    rows = -(-number // columns)
    figure.set_size_inches(_INCHES_WIDE if columns == 2 else 5.5, 3.6 * rows + 1.0)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[number:]:
        unused.remove()
    return list(axes[:number])


def _style(axes: "Axes", title: str, x_label: str) -> None:
    axes.set_title(title, loc="left", fontsize=_FONT_SIZE + 1)
    axes.set_xlabel(x_label, fontsize=_FONT_SIZE)
    axes.tick_params(labelsize=_FONT_SIZE)
    axes.grid(color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _pad_and_tick(axes: "Axes", places: Sequence[float]) -> None:
    """Room for labels at the sides, and ticks with plain numbers on the logarithmic axis."""
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    low, high = min(places) / 1.4, max(places) * 1.4
    axes.set_xlim(low, high)
    axes.margins(y=0.15)
    steps = (1, 2, 5)
    ticks = [step * 10.0**power for power in range(-6, 7) for step in steps]
    shown = [tick for tick in ticks if low <= tick <= high]
    if len(shown) < 2:  # a narrow range
        shown = sorted({float(f"{place:.2g}") for place in places})
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _finish(figure: "Figure", networks: Sequence[Network], note: str, *, ways: bool) -> None:
    """The legend above the panels, and the sources below them."""
    from matplotlib.lines import Line2D

    def mark(label: str, color: str, marker: str, *, face: str = "white", edge: float) -> Line2D:
        return Line2D(
            [],
            [],
            linestyle="",
            marker=marker,
            markersize=7.5,
            markeredgecolor=color,
            markeredgewidth=edge,
            markerfacecolor=face,
            label=label,
        )

    families = [f for f in _STYLES if any(network.family == f for network in networks)]
    handles = [mark(family, *_STYLES[family], edge=1.5) for family in families]
    if ways:
        handles += [
            Line2D([], [], color=_GREY, label="from scratch", **_FROM_SCRATCH),
            Line2D([], [], color=_GREY, label="pretrained", **_PRETRAINED),
        ]
    if any(network.source is not None for network in networks):
        handles.append(mark("published", _GREY, "o", edge=1.5))
    if any(network.source is None for network in networks):
        handles.append(mark("this project", _GREY, "o", face=_GREY, edge=1.5))
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=len(handles),
        frameon=False,
        fontsize=_FONT_SIZE,
        handlelength=1.8,
        columnspacing=1.2,
    )
    sources = list(dict.fromkeys(n.source for n in networks if n.source is not None))
    caption = f"Hollow: published ({'; '.join(sources)}). " if sources else ""
    caption += note
    width = int(_CHARACTERS_WIDE * figure.get_size_inches()[0] / _INCHES_WIDE)
    # The legend's place below the panels is reserved by the layout, which a plain text's is not.
    figure.legend(
        handles=[Line2D([], [], linestyle="", label=textwrap.fill(caption, width))],
        loc="outside lower left",
        frameon=False,
        fontsize=_FONT_SIZE - 1.5,
        handlelength=0,
        handletextpad=0,
        labelcolor=_GREY,
    )
