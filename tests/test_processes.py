"""Whole runs of one, two and four processes: what they agree on, and what becomes of losses."""

import json
import pathlib
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.processes import (
    STEPS,
    Launcher,
    Rank,
    assert_same_metrics,
    has_record,
    short_config,
    wait_until,
)
from tests.tiny_run import NUM_EVAL, Shell

pytest_plugins = ["tests.tiny_run_plugin"]
pytestmark = pytest.mark.multiprocess


@pytest.fixture(scope="module")
def launcher(shell: Shell, data_dir: pathlib.Path, tmp_path_factory) -> Iterator[Launcher]:
    directory = tmp_path_factory.mktemp("launcher")
    config = directory / "short.py"
    config.write_text(short_config(data_dir))
    launcher = Launcher(Shell(config, shell.environment), directory)
    yield launcher
    launcher.kill_all()


@pytest.fixture(scope="module")
def one(launcher: Launcher, tmp_path_factory) -> pathlib.Path:
    """The work directory of one process that was never disturbed."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    launcher.finish(workdir, count=1)
    return workdir


@pytest.fixture(scope="module")
def two(launcher: Launcher, tmp_path_factory) -> pathlib.Path:
    """The work directory of two processes that were never disturbed."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    first, second = launcher.finish(workdir, count=2)
    assert "2 cpu · short, " in first
    assert "done: top-1" in first
    # One of them speaks and writes for both.
    assert "step" not in second.replace("steps", "")
    assert "done" not in second
    return workdir


def test_two_processes_compute_what_one_does(one: pathlib.Path, two: pathlib.Path):
    assert_same_metrics(two, one, rtol=1e-5)
    summary = json.loads((two / "summary.json").read_text())
    assert summary["eval"]["final"]["step"] == STEPS
    assert summary["eval"]["final"]["eval/count"] == NUM_EVAL
    assert summary["facts"] == json.loads((one / "summary.json").read_text())["facts"]
    assert len(list((two / "tensorboard").glob("events.out.tfevents.*"))) == 1
    spent = summary["time"]
    assert sum(spent["secs"].values()) == pytest.approx(spent["wall_secs"], abs=0.01)
    assert 0 < spent["goodput"] < 1
    assert spent["steps"]["step_secs_p50"] <= spent["steps"]["step_secs_max"]


def test_two_processes_evaluate_what_they_trained(launcher: Launcher, two: pathlib.Path):
    logged = json.loads((two / "summary.json").read_text())["eval"]["final"]
    ranks = launcher.start_evaluation(two, f"--step={STEPS}", "--json", count=2)
    for rank in ranks:
        assert rank.end() == 0, rank.said()
    first, second = (rank.said() for rank in ranks)
    assert "top1" not in second
    scores = json.loads(first[first.index("{") :])
    for name in ("top1", "top5", "loss", "count"):
        assert scores[name] == pytest.approx(logged[f"eval/{name}"], rel=1e-6)


def test_each_process_leaves_a_heartbeat(two: pathlib.Path):
    for index in (0, 1):
        beat = json.loads((two / "heartbeats" / f"process_{index}.json").read_text())
        assert beat["process"] == index
        assert 0 <= time.time() - beat["unix_time_secs"] < 3600
        assert re.match(r"(starting|step \d+|evaluation after step \d+)$", beat["doing"])


# When SIGTERM comes: once this holds, after a random time up to so many seconds.
MOMENTS: dict[str, tuple[Callable[[pathlib.Path], bool], float]] = {
    "compiling": (lambda workdir: True, 1.0),
    "in a step": (lambda workdir: has_record(workdir, "train", 2), 0.2),
    "evaluating or saving": (lambda workdir: has_record(workdir, "train", 12), 0.3),
}


@pytest.mark.slow
def test_sigterm_at_random_moments_changes_nothing(
    launcher: Launcher, two: pathlib.Path, tmp_path: pathlib.Path
):
    """SIGTERM to a random process, once or twice; all end with 42; the same command goes on."""
    workdir, rng = tmp_path / "run", np.random.default_rng()
    for moment, (holds, secs) in MOMENTS.items():
        ranks = launcher.start(workdir, count=2)
        wait_until(lambda: "compiling" in ranks[0].said() and holds(workdir), ranks)  # noqa: B023
        time.sleep(rng.uniform(0, secs))
        chosen = rng.integers(2)
        ranks[chosen].process.send_signal(signal.SIGTERM)
        if rng.random() < 0.5:
            ranks[1 - chosen].process.send_signal(signal.SIGTERM)
            ranks[chosen].process.send_signal(signal.SIGTERM)
        told = [(rank.end(timeout_secs=120), rank.said()) for rank in ranks]
        print(moment, *told, sep="\n")
        assert [code for code, _ in told] == [42, 42]
        points = {re.search(r"Stopped by SIGTERM (.*?);", said)[1] for _, said in told}
        assert len(points) == 1
        for _, said in told:
            assert "Traceback" not in said
            assert said.count("pnet_jax: Stopped") == 1
    launcher.finish(workdir, count=2)
    for name in ("metrics.jsonl", "metrics_train.csv", "metrics_eval.csv"):
        assert (workdir / name).read_bytes() == (two / name).read_bytes(), name


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_the_run_goes_on(
    launcher: Launcher, two: pathlib.Path, tmp_path: pathlib.Path
):
    """SIGKILL to each of two: the other says which one is gone, in a moment."""
    workdir = tmp_path / "run"
    for killed, step in ((1, 10), (0, 20)):
        ranks = launcher.start(workdir, count=2)
        wait_until(lambda: has_record(workdir, "train", step), ranks)  # noqa: B023
        ranks[killed].process.kill()
        other = ranks[1 - killed]
        assert other.end(timeout_secs=20) == 1, other.said()
        # JAX's own runtime may have begun to say something, too.
        assert re.search(
            rf"pnet_jax: Process {killed} \(.+\) is gone \(its connection closed\); the same comm",
            other.said(),
        )
        assert "Traceback" not in other.said()
    launcher.finish(workdir, count=2)
    assert (workdir / "metrics.jsonl").read_bytes() == (two / "metrics.jsonl").read_bytes()
    spent = json.loads((workdir / "summary.json").read_text())["time"]["secs"]
    assert spent["repeated"] > 0
    assert spent["away"] > 0


@pytest.mark.slow
def test_a_run_goes_on_with_fewer_processes(
    launcher: Launcher, one: pathlib.Path, tmp_path: pathlib.Path
):
    """Four, then two that share the parameters, then one: the metrics of one never disturbed."""
    workdir = tmp_path / "run"
    for count, mesh, step in ((4, "data=4", 6), (2, "fsdp=2", 18)):
        ranks = launcher.start(workdir, f"mesh={mesh}", count=count)
        wait_until(lambda: has_record(workdir, "train", step), ranks)  # noqa: B023
        ranks[-1].process.send_signal(signal.SIGTERM)
        assert [rank.end() for rank in ranks] == [42] * count, ranks[0].said()
        assert ("of them split" in ranks[0].said()) == (mesh == "fsdp=2")
    (said,) = launcher.finish(workdir, count=1)
    assert re.search(rf"continuing after step \d+ of {STEPS}", said)
    assert_same_metrics(workdir, one, rtol=1e-5)


def told(ranks: list[Rank], code: int = 1) -> list[str]:
    """The last lines, of processes that all end with that code and nothing but a sentence."""
    for rank in ranks:
        assert rank.end(timeout_secs=60) == code, rank.said()
        assert "Traceback" not in rank.said()
        assert rank.said().count("pnet_jax: ") == 1, rank.said()
    return [rank.said().splitlines()[-1] for rank in ranks]


def test_who_is_missing_is_told(launcher: Launcher, tmp_path: pathlib.Path):
    limit = "distributed.start_secs=8"
    present = launcher.start(tmp_path / "run", limit, count=3, only=(0, 2))
    lost = launcher.start(tmp_path / "run", limit, count=2, only=(1,))
    for sentence in told(present):
        assert sentence == (
            "pnet_jax: After 8 s process 1 of 3 had not come; start all of them, or tell all that "
            "there are 2 (JAX_NUM_PROCESSES)."
        )
    (sentence,) = told(lost)
    assert "could not reach process 0 at 127.0.0.1:" in sentence
    assert not (tmp_path / "run").exists()


def test_processes_that_differ(launcher: Launcher, data_dir: pathlib.Path, tmp_path: pathlib.Path):
    other = launcher.start(tmp_path / "a", count=2, fields_of={1: ("epochs=3",)})
    elsewhere = tmp_path / "data"
    shutil.copytree(data_dir, elsewhere)
    (info,) = elsewhere.glob("emoji/*/dataset_info.json")
    info.write_text(info.read_text().replace("\n", "\n ", 1))
    moved = launcher.start(tmp_path / "b", count=2, fields_of={1: (f"data.data_dir={elsewhere}",)})
    for ranks, name in ((other, "the configuration's fingerprint"), (moved, "the data set")):
        first, second = told(ranks)
        assert first == second
        assert re.match(
            rf"pnet_jax: The processes differ in {name}: \w+ in process 0 \(.+\), \w+ in process 1 "
            rf"\(.+\); make them the same everywhere\.$",
            first,
        )


def test_a_mistake_ends_all_with_one_sentence(launcher: Launcher, tmp_path: pathlib.Path):
    ranks = launcher.start(tmp_path / "run", "global_batch_size=15", count=2)
    for sentence in told(ranks, code=2):
        assert "config.global_batch_size = 15 cannot be split over 2 devices" in sentence


def test_a_failure_in_one_ends_all(launcher: Launcher, tmp_path: pathlib.Path):
    """Only one of the processes reads corrupt images above its limit."""
    fields = {1: ("data.max_corrupt_images=0",)}
    ranks = launcher.start(tmp_path / "run", count=2, fields_of=fields)
    assert [rank.end(timeout_secs=120) for rank in ranks] == [1, 1]
    for rank in ranks:
        assert "Traceback" not in rank.said()
        assert re.findall(r"^pnet_jax: .*", rank.said(), re.MULTILINE) == [
            "pnet_jax: 1 training images could not be decoded, more than "
            "config.data.max_corrupt_images = 0 allows; their names are in the log above. Repair "
            "the data set or raise the limit."
        ]


@pytest.mark.slow
def test_the_slow_one_says_what_it_is_doing(launcher: Launcher, tmp_path: pathlib.Path):
    """A decoder that sleeps: the process that all wait for prints its stacks."""
    ranks = launcher.start(
        tmp_path / "run",
        "distributed.stall_secs=2",
        "data.num_threads=1",
        "data.prefetch_batches=1",
        count=2,
        SLOW_PROCESS="1",
    )
    wait_until(lambda: "slow_decode" in ranks[1].said(), ranks)
    ranks[1].process.send_signal(signal.SIGTERM)
    assert [rank.end(timeout_secs=120) for rank in ranks] == [42, 42]
    assert re.search(r"step \d+ has taken \d+ s, waiting for process 1 \(", ranks[0].said())
    assert "slow_decode" not in ranks[0].said()
    assert re.search(r"step \d+ has taken \d+ s; process 1 \(.+\) is here:", ranks[1].said())
