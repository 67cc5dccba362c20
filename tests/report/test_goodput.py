"""Where the time of a run went, by a clock that the tests set."""

import json
from pathlib import Path

import pytest

from pnet_jax.report.goodput import Goodput, read_goodput


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def steps(goodput: Goodput, clock: Clock, count: int, *, input_secs: float = 1.0) -> None:
    for _ in range(count):
        goodput.begin_step()
        clock.now += input_secs
        goodput.enter("training")
        clock.now += 4.0
        goodput.end_step()


def test_a_run_in_one_go(tmp_path: Path):
    clock = Clock()
    goodput = Goodput(tmp_path, resume_step=0, since=clock() - 2, clock=clock)
    clock.now += 3
    goodput.enter("compiling")
    clock.now += 10
    steps(goodput, clock, 9)
    steps(goodput, clock, 1, input_secs=6.0)
    goodput.enter("saving")
    clock.now += 10
    goodput.saved(10)
    assert read_goodput(tmp_path) == {
        "goodput": pytest.approx(40 / 80),
        "wall_secs": 80.0,
        "secs": {"training": 40, "input": 15, "compiling": 10, "saving": 10, "starting": 5},
        "steps": {
            "step_secs_p50": 5.0,
            "step_secs_p90": pytest.approx(5.5),
            "step_secs_p99": pytest.approx(9.55),
            "step_secs_max": 10.0,
        },
    }


def test_a_kill_costs_what_is_done_again_and_the_time_until_the_next_start(tmp_path: Path):
    clock = Clock()
    goodput = Goodput(tmp_path, resume_step=0, clock=clock)
    steps(goodput, clock, 3)
    goodput.saved(3)
    steps(goodput, clock, 2)
    goodput.write()
    clock.now += 100
    goodput = Goodput(tmp_path, resume_step=3, clock=clock)
    clock.now += 7
    steps(goodput, clock, 2)
    goodput.write()
    spent = read_goodput(tmp_path)
    assert spent is not None
    assert spent["secs"] == {
        "away": 100.0,
        "training": 20.0,
        "repeated": 8.0,
        "starting": 7.0,
        "input": 7.0,
    }
    assert spent["wall_secs"] == 142.0


def test_without_a_file(tmp_path: Path):
    goodput = Goodput(None, resume_step=0)
    goodput.saved(1)
    assert read_goodput(tmp_path) is None
    (tmp_path / "goodput.json").write_text("{torn")
    assert read_goodput(tmp_path) is None
    Goodput(tmp_path, resume_step=0).write()
    assert json.loads((tmp_path / "goodput.json").read_text())["secs"].keys() == {"starting"}
