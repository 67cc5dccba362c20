"""Draws the records of runs as a matplotlib figure."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pnet_jax.report.jsonl import Record

if TYPE_CHECKING:  # matplotlib takes a second to import: only drawing pays for it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# Okabe and Ito, "Color Universal Design" (2008): told apart by all common kinds of colour vision.
# Their yellow is left out, it is illegible as a line on white.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GREY = "#666666"
_FONT_SIZE = 12.0
_POINTS_PER_INCH = 72.0

# Beyond this many points, marking each one hides the line.
_MAX_MARKERS = 40

_THIN: dict[str, Any] = {"linewidth": 1.2, "alpha": 0.6}
_BOLD: dict[str, Any] = {"linewidth": 2.2}
_DASHED: dict[str, Any] = {"linewidth": 1.8, "linestyle": (0, (4, 1.5))}


@dataclass(frozen=True)
class Run:
    """What is drawn of a run."""

    label: str
    train: Sequence[Record]
    evals: Sequence[Record]
    num_classes: int | None


@dataclass(frozen=True)
class _LineLabel:
    """A line's name, to be written beside its right end, at `y` in data coordinates."""

    text: str
    y: float
    color: str


@dataclass(frozen=True)
class _Panel:
    """One pair of axes and the labels its lines are to get."""

    axes: "Axes"
    labels: list[_LineLabel]


def draw_curves(runs: Sequence[Run]) -> "Figure":
    """Returns a figure with loss, accuracy and learning rate in a row for each number of classes.

    Runs on equally many classes share a row, as only their numbers compare. The horizontal axis of
    a row is the epoch if all its runs log it, else the step. Raises ValueError if there is no run.
    """
    if not runs:
        raise ValueError("no runs to draw")
    # Matplotlib logs that it builds its font cache or finds no place for it: nobody's concern here.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows: dict[int | None, list[tuple[Run, str]]] = {}
    for i, run in enumerate(runs):
        rows.setdefault(run.num_classes, []).append((run, _PALETTE[i % len(_PALETTE)]))
    layout = ConstrainedLayoutEngine(wspace=0.06)
    figure = Figure(figsize=(13, 4 * len(rows)), layout=layout)
    subfigures = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    panels = [
        panel
        for subfigure, (num_classes, row) in zip(subfigures, rows.items(), strict=True)
        for panel in _draw_row(subfigure, row, num_classes)
    ]
    figure.draw_without_rendering()  # gives the panels their heights, which the labels need
    for panel in panels:
        _write_labels(panel)
    return figure


def _draw_row(
    subfigure: "SubFigure", row: Sequence[tuple[Run, str]], num_classes: int | None
) -> list[_Panel]:
    from matplotlib.lines import Line2D

    loss, accuracy, rate = (_Panel(axes, []) for axes in subfigure.subplots(1, 3))
    epochs_per_step = [_epochs_per_step(run) for run, _ in row]
    for (run, color), scale in zip(row, epochs_per_step, strict=True):
        x_per_step = 1.0 if None in epochs_per_step or scale is None else scale
        train = _Lines(run.train, x_per_step, color)
        evals = _Lines(run.evals, x_per_step, color)
        train.add(loss, "train/loss", "train {:.2f}", _THIN)
        evals.add(loss, "eval/loss", "eval {:.2f}", _BOLD)
        evals.add(accuracy, "eval/top1", "top-1 {:.1f}%", _BOLD, factor=100.0)
        evals.add(accuracy, "eval/top5", "top-5 {:.1f}%", _DASHED, factor=100.0)
        train.add(rate, "train/learning_rate", "", _BOLD)
    if num_classes is not None and accuracy.labels:
        chance = 100.0 / num_classes
        accuracy.axes.axhline(chance, color=_GREY, linewidth=1.2, linestyle=":")
        accuracy.labels.append(_LineLabel(f"top-1 chance {chance:.2g}%", chance, _GREY))

    x_label = "step" if None in epochs_per_step else "epoch"
    for panel, title in (
        (loss, "Loss (thin: train, bold: eval)"),
        (accuracy, "Validation accuracy, %"),
        (rate, "Learning rate"),
    ):
        _style(panel.axes, title, x_label)
        panel.axes.yaxis.set_major_formatter("{x:g}")
    # A little room below zero: chance on thousands of classes would lie on the frame otherwise.
    accuracy.axes.set_ylim(bottom=-0.04 * accuracy.axes.get_ylim()[1])
    rate.axes.set_ylim(bottom=0.0)
    names = [Line2D([], [], color=color, linewidth=4, label=run.label) for run, color in row]
    legend = subfigure.legend(
        handles=names,
        loc="outside upper left",
        ncols=len(names),
        frameon=False,
        handlelength=1.0,
        fontsize=_FONT_SIZE + 2,
    )
    for text in legend.get_texts():
        text.set_fontweight("bold")
        text.set_parse_math(False)  # a "$" in a label is a dollar
    return [loss, accuracy, rate]


@dataclass(frozen=True)
class _Lines:
    """Draws records of one run and kind."""

    records: Sequence[Record]
    x_per_step: float
    color: str

    def add(
        self, panel: _Panel, key: str, label: str, style: dict[str, Any], *, factor: float = 1.0
    ) -> None:
        """Draws scalar `key` times `factor` and labels it with its last value, if it was logged."""
        points = [
            (record.step * self.x_per_step, factor * record.scalars[key])
            for record in self.records
            if key in record.scalars
        ]
        finite = [y for _, y in points if math.isfinite(y)]
        if not finite:
            return
        single_or_few = len(points) == 1 or (
            len(points) <= _MAX_MARKERS and key.startswith("eval/")
        )
        panel.axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=self.color,
            marker="o" if single_or_few else "",
            markersize=4,
            label=key,
            **style,
        )
        if label:
            panel.labels.append(_LineLabel(label.format(finite[-1]), finite[-1], self.color))


def _epochs_per_step(run: Run) -> float | None:
    for record in reversed(run.train):
        if record.step > 0 and record.scalars.get("epoch", 0.0) > 0:
            return record.scalars["epoch"] / record.step
    return None


def _style(axes: "Axes", title: str, x_label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", fontsize=_FONT_SIZE + 1)
    axes.set_xlabel(x_label, fontsize=_FONT_SIZE)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.tick_params(labelsize=_FONT_SIZE)
    axes.grid(color="#E5E5E5")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    # From zero; limits that are equal (one record, at step 0) would warn.
    axes.set_xlim(0.0, axes.dataLim.x1 * 1.02 if axes.dataLim.x1 > 0 else 1.0)


def _write_labels(panel: _Panel) -> None:
    """Writes the labels right of the axes, each as near its line's end as the others allow."""
    axes = panel.axes
    height_points = axes.get_window_extent().height / axes.figure.dpi * _POINTS_PER_INCH
    gap = 1.2 * _FONT_SIZE / height_points  # of two lines of text, in heights of the axes
    to_axes = axes.transData + axes.transAxes.inverted()
    labels = sorted(panel.labels, key=lambda label: label.y)
    wanted = [float(to_axes.transform((0.0, label.y))[1]) for label in labels]
    for label, y in zip(labels, spread(wanted, gap=gap), strict=True):
        axes.text(
            1.02,
            y,
            label.text,
            color=label.color,
            transform=axes.transAxes,
            va="center",
            fontsize=_FONT_SIZE,
        )


def spread(positions: Sequence[float], *, gap: float) -> list[float]:
    """Moves ascending positions in [0, 1] as little as a distance of `gap` between them needs.

    If they do not all fit below 1, the lowest go below 0.
    """
    placed: list[float] = []
    for position in positions:
        placed.append(max(position, placed[-1] + gap) if placed else position)
    upper = 1.0
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], upper)
        upper = placed[i] - gap
    return placed
