"""The curves: what is in the figure, odd records, and the command line."""

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.lines import Line2D

from pnet_jax.report.curves import draw_curves, spread
from pnet_jax.report.jsonl import Kind
from pnet_jax.report.plots import load_run, main, plot_curves
from pnet_jax.report.summary import write_summary
from pnet_jax.report.writers import MetricWriters


def write_run(
    workdir: Path, *, steps: Iterable[int] = range(10, 101, 10), num_classes: int | None = None
) -> Path:
    """A run of 10 steps an epoch that logs and evaluates at `steps`."""
    with MetricWriters(workdir, resume_step=0) as writers:
        for step in steps:
            loss = math.exp(-step / 50)
            writers.write(
                step,
                "train",
                {"epoch": step / 10, "train/loss": loss, "train/learning_rate": 1e-3 * loss},
            )
            writers.write(
                step,
                "eval",
                {"eval/loss": loss + 0.1, "eval/top1": 0.5 - loss / 4, "eval/top5": 0.9 - loss / 4},
            )
    if num_classes is not None:
        write_summary(workdir, facts={"num_classes": num_classes})
    return workdir


def ys(line: Line2D) -> list[float]:
    return list(np.asarray(line.get_ydata()))


def png_size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def test_a_row_for_each_number_of_classes(tmp_path: Path) -> None:
    runs = {
        "pretrain": write_run(tmp_path / "a", num_classes=1589),
        "fine-tune": write_run(tmp_path / "b", steps=[20, 40], num_classes=98),
        "from scratch": write_run(tmp_path / "c", steps=[20, 40], num_classes=98),
    }
    figure = draw_curves([load_run(label, directory) for label, directory in runs.items()])
    assert len(figure.subfigs) == 2
    assert len(figure.axes) == 6
    assert [[t.get_text() for t in s.legends[0].get_texts()] for s in figure.subfigs] == [
        ["pretrain"],
        ["fine-tune", "from scratch"],
    ]
    loss, accuracy, rate = figure.axes[3:]
    assert [line.get_label() for line in loss.get_lines()] == ["train/loss", "eval/loss"] * 2
    assert list(np.asarray(loss.get_lines()[0].get_xdata())) == [2.0, 4.0]
    assert loss.get_xlabel() == "epoch"
    assert ys(rate.get_lines()[0]) == [1e-3 * math.exp(-s / 50) for s in (20, 40)]
    top1, top5, _, _, chance = accuracy.get_lines()
    assert ys(top1) == [100 * (0.5 - math.exp(-s / 50) / 4) for s in (20, 40)]
    assert ys(top5) == [100 * (0.9 - math.exp(-s / 50) / 4) for s in (20, 40)]
    assert ys(chance) == [100 / 98] * 2
    assert chance.get_linestyle() == ":"
    # Written from the lowest up, none on top of another.
    assert [text.get_text() for text in accuracy.texts] == [
        "top-1 chance 1%",
        "top-1 38.8%",
        "top-1 38.8%",
        "top-5 78.8%",
        "top-5 78.8%",
    ]
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in accuracy.texts]
    assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes))
    assert all(box.x1 <= rate.get_window_extent().x0 for box in boxes)


def test_pictures(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", steps=[10])
    # "$" and a script the font lacks, in a label: neither may fail nor warn.
    runs = {"one record": one, "$many$ \u5b57": write_run(tmp_path / "many", num_classes=5)}
    plot_curves(runs, tmp_path / "new" / "curves.png")
    assert png_size(tmp_path / "new" / "curves.png") == (1950, 1200)
    plot_curves({"one record": one}, tmp_path / "one.png")
    assert png_size(tmp_path / "one.png") == (1950, 600)
    plot_curves({"one record": one}, tmp_path / "curves.svg")
    svg = (tmp_path / "curves.svg").read_text()
    assert svg.startswith("<?xml")
    assert "<dc:date>" not in svg


def test_equal_records_give_equal_pictures(tmp_path: Path) -> None:
    run = {"run": write_run(tmp_path / "run")}
    plot_curves(run, tmp_path / "a.png")
    plot_curves(run, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("kind", "step", "scalars"),
    [
        ("train", 0, {"train/loss": 7.0}),
        ("train", 5, {"train/loss": math.nan}),
        ("eval", 5, {"eval/top1": 0.0}),
        ("eval", 5, {"eval/loss": math.inf, "eval/top1": math.nan}),
    ],
)
def test_a_single_odd_record(
    tmp_path: Path, kind: Kind, step: int, scalars: dict[str, float]
) -> None:
    with MetricWriters(tmp_path, resume_step=0) as writers:
        writers.write(step, kind, scalars)
    write_summary(tmp_path, facts={"num_classes": 10})
    plot_curves({"run": tmp_path}, tmp_path / "curves.png")
    assert png_size(tmp_path / "curves.png") == (1950, 600)
    (axes, *_) = draw_curves([load_run("run", tmp_path)]).axes
    assert axes.get_xlabel() == "step"


def test_single_points_are_marked(tmp_path: Path) -> None:
    figure = draw_curves([load_run("run", write_run(tmp_path, steps=[10]))])
    assert [line.get_marker() for axes in figure.axes for line in axes.get_lines()] == ["o"] * 5


def test_a_torn_line_and_a_damaged_summary_are_passed_over(tmp_path: Path) -> None:
    write_run(tmp_path, num_classes=7)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 110, "tr')
    run = load_run("run", tmp_path)
    assert len(run.train) == len(run.evals) == 10
    assert run.num_classes == 7
    for damaged in ("{", "[]", json.dumps({"facts": {"num_classes": "many"}})):
        (tmp_path / "summary.json").write_text(damaged)
        assert load_run("run", tmp_path).num_classes is None


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([], []),
        ([0.5], [0.5]),
        ([0.1, 0.5, 0.9], [0.1, 0.5, 0.9]),
        ([0.5, 0.5, 0.5], [0.5, 0.6, 0.7]),
        ([0.2, 0.95, 1.0], [0.2, 0.9, 1.0]),
        ([0.99, 0.99, 1.0], [0.8, 0.9, 1.0]),
    ],
)
def test_spread(positions: list[float], expected: list[float]) -> None:
    assert spread(positions, gap=0.1) == pytest.approx(expected)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "x=y")
    out = tmp_path / "curves.png"
    arguments = ["--runs", f"first={tmp_path / 'a'}", str(tmp_path / "x=y"), "--out", str(out)]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert png_size(out) == (1950, 600)  # no summaries: nothing tells the runs' classes apart


@pytest.mark.parametrize(
    ("runs", "out", "sentence"),
    [
        (["absent"], "c.png", "absent is not a run directory: it has no metrics.jsonl"),
        (["empty"], "c.png", "metrics.jsonl has no records yet"),
        (["run"], "c.pdf", "c.pdf is neither"),
        (["run", "run"], "c.png", "Two runs are called 'run'"),
    ],
)
def test_mistakes_end_in_one_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    runs: list[str],
    out: str,
    sentence: str,
) -> None:
    write_run(tmp_path / "run")
    write_run(tmp_path / "empty", steps=[])
    directories = [str(tmp_path / name) for name in runs]
    assert main(["--runs", *directories, "--out", str(tmp_path / out)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / out).exists()


def test_module_runs_without_a_home_directory(tmp_path: Path) -> None:
    """Where matplotlib has no place for its cache, it must still draw, and say nothing."""
    run = write_run(tmp_path / "run")
    command = [sys.executable, "-W", "error", "-m", "pnet_jax.report.plots"]
    done = subprocess.run(
        [*command, "--runs", str(run), "--out", str(tmp_path / "c.png")],
        env={"PATH": "", "HOME": "/dev/null", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert png_size(tmp_path / "c.png") == (1950, 600)
    help_text = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "[LABEL=]DIR" in help_text.stdout
    assert "example:" in help_text.stdout
