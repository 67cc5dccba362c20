"""The paper's figures: accuracy against cost, and what pretraining gains.

Published numbers are hollow and cited below the picture, runs of this project are solid, and what
was measured on different data is in different panels. Families differ in marker and colour, ways of
training in line, so that nothing depends on colour alone.
"""

import io
import logging
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pnet_jax.analysis.points import IMAGENET, OTHER_FAMILY, Accuracy, Gain, Network

if TYPE_CHECKING:  # matplotlib takes a second to import: only drawing pays for it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class _Style(NamedTuple):
    """Of a family; the sides on which labels stand keep them off each other."""

    color: str
    marker: str
    accuracy_side: str
    gain_side: str
    dynamic_gain_side: str


# Okabe and Ito, "Color Universal Design" (2008): told apart by all common kinds of colour vision.
_STYLES = {
    "GhostNet": _Style("#E69F00", "o", "below", "left", "left"),
    "ParameterNet": _Style("#D55E00", "s", "above", "right", "right"),
    "Swin": _Style("#0072B2", "^", "below", "right", "above"),
    "EfficientNetV2": _Style("#009E73", "D", "above", "right", "right"),
    OTHER_FAMILY: _Style("#000000", "v", "above", "right", "right"),
}
# Offset in points and alignment of a label on each side.
_SIDES = {
    "above": ((0, 7), "center", "bottom"),
    "below": ((0, -7), "center", "top"),
    "left": ((-8, 0), "right", "center"),
    "right": ((8, 0), "left", "center"),
}
_FROM_SCRATCH: dict[str, Any] = {"linestyle": (0, (4, 2)), "linewidth": 1.2}
_PRETRAINED: dict[str, Any] = {"linestyle": "-", "linewidth": 1.8}
_GREY = "#666666"
_FONT_SIZE = 9.0
_INCHES_WIDE = 9.0
_INCHES_SINGLE = 6.5
_CHARACTERS_PER_INCH = 16
_MARKER_SIZE = 7.5


class _Axis(NamedTuple):
    """The horizontal axis: what it shows of a network, and its name."""

    of: Callable[[Network], float]
    label: str


def accuracy_against_macs(accuracies: Sequence[Accuracy], gains: Sequence[Gain]) -> "Figure":
    """Accuracy against multiply-adds and, beside it, the gain from pretraining.

    Runs on other data than ImageNet-1K have panels of their own.
    """

    def axis(networks: Sequence[Network]) -> _Axis:
        unit, size = ("G", 1e9) if max(n.macs for n in networks) >= 1e8 else ("M", 1e6)
        return _Axis(lambda n: n.macs / size, f"multiply-adds of one image, {unit} (log scale)")

    note = "Multiply-adds are traced from this project's networks."
    return _draw(accuracies, gains, axis, note)


def accuracy_against_latency(
    accuracies: Sequence[Accuracy], latency_ms: Mapping[str, float], setting: str
) -> "Figure":
    """Accuracy against measured latency, of the networks that `latency_ms` names."""
    timed = [a for a in accuracies if a.network.model in latency_ms]
    axis = _Axis(lambda n: latency_ms[n.model], "latency of one image, ms (log scale)")
    note = f"Latency: measured by this project, {setting}."
    return _draw(timed, [], lambda networks: axis, note)


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
                text = f"{gain.gain:+.1f}".replace("-", "\N{MINUS SIGN}")
                _label(axes, text, place, gain.gain, "above" if gain.gain >= 0 else "below")
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


def picture(figure: "Figure", file_format: str) -> bytes:
    """The figure as a "png" or "svg" file; the same numbers give the same bytes."""
    import matplotlib

    content = io.BytesIO()
    metadata = {"Date": None} if file_format == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "pnet_jax"}), warnings.catch_warnings():
        # A directory's name in a script the font lacks is drawn as boxes: no reason to alarm.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(content, format=file_format, dpi=150, metadata=metadata)
    return content.getvalue()


def _draw(
    accuracies: Sequence[Accuracy],
    gains: Sequence[Gain],
    axis_for: Callable[[Sequence[Network]], _Axis],
    note: str,
) -> "Figure":
    figure = _figure()
    panels: list[tuple[str, list[Any], Callable[..., None]]] = []
    for data, group in _by_data(accuracies).items():
        panels.append((f"Top-1, % ({data})", group, _draw_accuracies))
        if data == IMAGENET and gains:
            group = [gain for gain in gains if gain.network.data == data]
            panels.append((f"Gain from pretraining, points ({data})", group, _draw_gains))
    for axes, (title, points, draw) in zip(_panels(figure, len(panels)), panels, strict=True):
        axis = axis_for([point.network for point in points])
        axes.set_xscale("log")
        draw(axes, points, axis)
        _style(axes, title, axis.label)
        _pad_and_tick(axes, [axis.of(point.network) for point in points])
    networks = [point.network for _, points, _ in panels for point in points]
    _finish(figure, networks, note, ways=True)
    return figure


def _draw_accuracies(axes: "Axes", accuracies: Sequence[Accuracy], axis: _Axis) -> None:
    lines: dict[tuple[str, bool], list[Accuracy]] = {}
    for point in accuracies:
        _mark(axes, point.network, axis.of(point.network), point.top1, pretrained=point.pretrained)
        if point.network.source is not None:  # runs need not belong together
            lines.setdefault((point.network.family, point.pretrained), []).append(point)
        else:
            way = "pretrained" if point.pretrained else "from scratch"
            label = f"{point.network.label}: {point.network.model}, {way}"
            _label(axes, label, axis.of(point.network), point.top1, "above")
    for (family, pretrained), points in lines.items():
        points.sort(key=lambda point: axis.of(point.network))
        axes.plot(
            [axis.of(point.network) for point in points],
            [point.top1 for point in points],
            color=_STYLES[family].color,
            zorder=1,
            **(_PRETRAINED if pretrained else _FROM_SCRATCH),
        )
    # One label a network, beyond the last of its points on that side.
    heights: dict[Network, list[float]] = {}
    for point in accuracies:
        if point.network.source is not None:
            heights.setdefault(point.network, []).append(point.top1)
    for network, tops in heights.items():
        side = _STYLES[network.family].accuracy_side
        height = max(tops) if side == "above" else min(tops)
        _label(axes, network.label, axis.of(network), height, side)


def _draw_gains(axes: "Axes", gains: Sequence[Gain], axis: _Axis) -> None:
    published = {gain.network.model: gain for gain in gains if gain.network.source is not None}
    axes.axhline(0.0, color="#000000", linewidth=0.8, zorder=0)
    for gain in gains:
        place = axis.of(gain.network)
        static = published.get(gain.static_model or "")
        if static is not None:
            axes.annotate(
                "",
                (place, gain.gain),
                xytext=(axis.of(static.network), static.gain),
                arrowprops={"arrowstyle": "->", "color": _GREY, "shrinkA": 6, "shrinkB": 6},
            )
        _mark(axes, gain.network, place, gain.gain, pretrained=True)
        label = gain.network.label.replace(" dynamic", "\ndynamic")
        style = _STYLES[gain.network.family]
        side = style.gain_side if gain.static_model is None else style.dynamic_gain_side
        _label(axes, label, place, gain.gain, side)


def _mark(axes: "Axes", network: Network, x: float, y: float, *, pretrained: bool) -> None:
    style = _STYLES[network.family]
    axes.plot(
        [x],
        [y],
        linestyle="",
        marker=style.marker,
        markersize=_MARKER_SIZE,
        markeredgecolor=style.color,
        markeredgewidth=2.0 if pretrained else 1.0,
        # Hollow is white, not transparent: no line shows through.
        markerfacecolor="white" if network.source is not None else style.color,
        zorder=2,
    )


def _label(axes: "Axes", text: str, x: float, y: float, side: str) -> None:
    offset, horizontal, vertical = _SIDES[side]
    label = axes.annotate(
        text,
        (x, y),
        xytext=offset,
        textcoords="offset points",
        ha=horizontal,
        va=vertical,
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
    """So many axes, two in a row; an odd one at the end is as wide as the row, and flatter."""
    if number == 1:
        figure.set_size_inches(_INCHES_SINGLE, 4.6)
        return [figure.subplots()]
    heights = [3.6] * (number // 2) + [2.2] * (number % 2)
    figure.set_size_inches(_INCHES_WIDE, sum(heights) + 1.0)
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    places = [grid[i // 2, i % 2] for i in range(number - number % 2)]
    if number % 2:
        places.append(grid[number // 2, :])
    return [figure.add_subplot(place) for place in places]


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

    low, high = min(places) / 1.8, max(places) * 1.5
    axes.set_xlim(low, high)
    axes.margins(y=0.2)
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

    def mark(label: str, color: str, marker: str, face: str = "white") -> Line2D:
        return Line2D(
            [],
            [],
            linestyle="",
            marker=marker,
            markersize=_MARKER_SIZE,
            markeredgecolor=color,
            markeredgewidth=1.5,
            markerfacecolor=face,
            label=label,
        )

    handles = [
        mark(family, style.color, style.marker)
        for family, style in _STYLES.items()
        if any(network.family == family for network in networks)
    ]
    if ways:
        handles += [
            Line2D([], [], color=_GREY, label="from scratch", **_FROM_SCRATCH),
            Line2D([], [], color=_GREY, label="pretrained", **_PRETRAINED),
        ]
    if any(network.source is not None for network in networks):
        handles.append(mark("published", _GREY, "o"))
    if any(network.source is None for network in networks):
        handles.append(mark("this project", _GREY, "o", face=_GREY))
    width = figure.get_size_inches()[0]
    columns = min(len(handles), 4)
    figure.legend(
        # Matplotlib fills columns, a reader reads rows.
        handles=[handle for column in range(columns) for handle in handles[column::columns]],
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        fontsize=_FONT_SIZE,
        handlelength=2.0,
    )
    sources = list(dict.fromkeys(n.source for n in networks if n.source is not None))
    caption = f"Hollow: published ({'; '.join(sources)}). " if sources else ""
    text = textwrap.fill(caption + note, int(_CHARACTERS_PER_INCH * width))
    # The layout makes room for a legend, which it does not for a text.
    figure.legend(
        handles=[Line2D([], [], linestyle="", label=text)],
        loc="outside lower left",
        frameon=False,
        fontsize=_FONT_SIZE - 1.5,
        handlelength=0,
        handletextpad=0,
        labelcolor=_GREY,
    )
