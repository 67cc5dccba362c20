"""The summary: which evaluation is best, and that equal runs write equal files."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from pnet_jax.report.summary import write_summary
from pnet_jax.report.writers import MetricWriters

FACTS = {"model": "parameternet_300m", "parameters": 15_737_100, "num_classes": 98, "a": (1, 2)}


def write_run(workdir: Path, top1s: list[float]) -> None:
    with MetricWriters(workdir, resume_step=0) as writers:
        for i, top1 in enumerate(top1s):
            step = 10 * (i + 1)
            writers.write(step, "train", {"train/loss": 1 / step})
            writers.write(step, "eval", {"eval/top1": top1, "eval/count": 50})


def test_best_and_final(tmp_path: Path) -> None:
    write_run(tmp_path, [0.1, 0.3, math.nan, 0.3, 0.2])
    summary = write_summary(tmp_path, facts=FACTS)
    assert summary["train"] == {"final": {"step": 50, "train/loss": 0.02}}
    assert summary["eval"] == {
        "final": {"step": 50, "eval/top1": 0.2, "eval/count": 50},
        "best": {"step": 20, "eval/top1": 0.3, "eval/count": 50},  # the earliest of equals
    }
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert list(summary["facts"]) == list(FACTS)
    assert summary["facts"]["a"] == [1, 2]


def test_equal_runs_write_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, [0.1, 0.2])
        write_summary(tmp_path / name, facts=FACTS)
    first, second = ((tmp_path / name / "summary.json").read_bytes() for name in ("a", "b"))
    assert first == second
    write_summary(tmp_path / "a", facts=FACTS)
    assert (tmp_path / "a" / "summary.json").read_bytes() == first


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    write_run(tmp_path, [math.nan])
    summary = write_summary(tmp_path, facts={"macs": math.inf, "rate": np.float32(0.5)})
    assert summary["facts"] == {"macs": None, "rate": 0.5}
    assert summary["eval"]["final"] == {"step": 10, "eval/top1": None, "eval/count": 50}
    assert summary["eval"]["best"] is None


def test_a_run_without_records(tmp_path: Path) -> None:
    summary = write_summary(tmp_path, facts={"workdir": tmp_path, "config": {"seed": np.int64(1)}})
    assert summary == {
        "facts": {"workdir": str(tmp_path), "config": {"seed": 1}},
        "train": {"final": None},
        "eval": {"final": None, "best": None},
        "time": None,
    }


def test_a_fact_that_json_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="of type set"):
        write_summary(tmp_path, facts={"devices": {"cpu"}})
    assert not (tmp_path / "summary.json").exists()
