"""Whole runs through the command line: what they leave behind, and what kills do not change."""

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import time
from collections.abc import Callable

import jax
import numpy as np
import pytest

from pnet_jax.checkpoint.manager import Checkpoints
from pnet_jax.data.datasets import open_dataset
from pnet_jax.data.emoji.builder import label_names
from pnet_jax.report.jsonl import read_records
from tests.tiny_run import (
    BATCH,
    CORRUPT,
    EVAL_STEPS,
    NUM_CLASSES,
    NUM_EVAL,
    NUM_TRAIN,
    SAVE_STEPS,
    STEPS,
    FinishedRun,
    Shell,
)

pytest_plugins = ["tests.tiny_run_plugin"]

# Equal, byte for byte, in any two runs of one configuration.
SAME_FILES = ("metrics.jsonl", "metrics_train.csv", "metrics_eval.csv")


def averages(workdir: pathlib.Path, step: int):
    """The `ema` and the raw variables of a checkpoint."""
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.restore_averages(step)


def saved_steps(workdir: pathlib.Path) -> list[int]:
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.steps()


def leaves(tree) -> dict[str, np.ndarray]:
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def assert_equal(ours, theirs) -> None:
    ours, theirs = leaves(ours), leaves(theirs)
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[name], err_msg=name)


def assert_same_outcome(workdir: pathlib.Path, reference: pathlib.Path) -> None:
    for name in SAME_FILES:
        assert (workdir / name).read_bytes() == (reference / name).read_bytes(), name
    summaries = [json.loads((path / "summary.json").read_text()) for path in (workdir, reference)]
    # Where the time went is each run's own.
    assert all(summary.pop("time")["wall_secs"] > 0 for summary in summaries)
    assert summaries[0] == summaries[1]
    assert saved_steps(workdir) == saved_steps(reference)
    assert_equal(averages(workdir, STEPS), averages(reference, STEPS))


def test_a_run_says_what_it_does(finished_run: FinishedRun):
    first, last = finished_run.stdout.splitlines()
    assert first.startswith("1 cpu · ghostnet_300m, 28")
    for part in (
        f"emoji: {NUM_CLASSES} classes, {NUM_TRAIN} training and {NUM_EVAL} evaluation images",
        f"{STEPS} steps of {BATCH} images (2 epochs)",
        "MACs at 32 px",
    ):
        assert part in first
    assert re.match(rf"done: top-1 [\d.]+%, top-5 [\d.]+% on {NUM_EVAL} images; see sum", last)
    assert "ghostnet_300m: step 25/25 (100%)" in finished_run.stderr
    assert "images/s" in finished_run.stderr


def test_a_run_leaves_its_records(finished_run: FinishedRun):
    workdir = finished_run.workdir
    records = read_records(workdir / "metrics.jsonl")
    train = [record for record in records if record.kind == "train"]
    evals = [record for record in records if record.kind == "eval"]
    # Every second step, and before each save.
    assert [r.step for r in train] == sorted({*range(2, STEPS + 1, 2), *SAVE_STEPS})
    assert [r.step for r in evals] == list(EVAL_STEPS)
    for record in train:
        assert record.scalars.keys() >= {
            "epoch",
            "train/loss",
            "train/top1",
            "train/grad_norm",
            "train/temperature",
            "train/learning_rate",
        }
        assert all(np.isfinite(value) for value in record.scalars.values())
    for record in evals:
        # 45 images in batches of 32: each counts exactly once.
        assert record.scalars["eval/count"] == NUM_EVAL
        for name in ("eval/top1", "eval/top5"):
            hits = record.scalars[name] * NUM_EVAL
            assert abs(hits - round(hits)) < 1e-9
    assert train[-1].scalars["epoch"] == STEPS * BATCH / NUM_TRAIN == 2.0
    # The temperature falls from 30 to 1 within the first of two epochs.
    temperatures = [r.scalars["train/temperature"] for r in train]
    assert temperatures[-1] == 1
    assert temperatures == sorted(temperatures, reverse=True)
    assert 25 < temperatures[0] < 30
    assert abs(train[0].scalars["train/loss"] - np.log(NUM_CLASSES)) < 0.3

    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["facts"]["steps"] == STEPS
    assert summary["facts"]["train_images"] == NUM_TRAIN
    assert summary["facts"]["eval_images"] == NUM_EVAL
    assert summary["eval"]["final"] == {"step": STEPS} | evals[-1].scalars
    assert summary["train"]["final"] == {"step": STEPS} | train[-1].scalars
    assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (workdir / "metrics_train.csv").read_text().count("\n") == len(train) + 1
    assert (workdir / "metrics_eval.csv").read_text().count("\n") == len(evals) + 1
    assert len(list((workdir / "tensorboard").glob("events.out.tfevents.*"))) == 1
    timing = read_records(workdir / "timing.jsonl")
    assert timing
    for record in timing:
        secs, rate = record.scalars["step_secs"], record.scalars["images_per_sec"]
        assert secs * rate == pytest.approx(BATCH)


def test_a_run_keeps_the_last_and_the_best_checkpoints(finished_run: FinishedRun):
    evals = read_records(finished_run.workdir / "metrics.jsonl")
    top1 = {r.step: r.scalars["eval/top1"] for r in evals if r.kind == "eval"}
    steps = saved_steps(finished_run.workdir)
    assert set(steps) >= set(SAVE_STEPS[-2:])
    assert len(steps) <= 3
    with Checkpoints(finished_run.workdir) as checkpoints:
        assert checkpoints.latest_step() == STEPS
        assert top1[checkpoints.best_step()] == max(top1.values())
    ema, raw = averages(finished_run.workdir, STEPS)
    assert leaves(ema).keys() == leaves(raw).keys()
    assert not np.array_equal(
        ema["params"]["classifier"]["kernel"], raw["params"]["classifier"]["kernel"]
    )


@dataclasses.dataclass(frozen=True)
class SideRun:
    """A run that goes on beside the tests until one asks for its end."""

    workdir: pathlib.Path
    log: pathlib.Path
    process: subprocess.Popen[bytes]

    def end(self) -> tuple[int, str]:
        """The exit code, and all that it said."""
        return self.process.wait(timeout=300), self.log.read_text()


@pytest.fixture(scope="module")
def side_runs(shell: Shell, finished_run: FinishedRun, tmp_path_factory):
    """Two runs that are to fail, started before the test that takes longest."""
    directory = tmp_path_factory.mktemp("side_runs")
    num_coarse = len(label_names(NUM_CLASSES)["coarse_label"])
    fields = {
        # Warm-up keeps the absurd learning rate at 0 in the first step.
        "diverging": (
            f"init_from={finished_run.workdir}",
            "data.label=coarse_label",
            f"data.num_classes={num_coarse}",
            "model.bn_statistics=running",
            "optimizer.learning_rate=1e30",
            "checkpoint.every_steps=1",
        ),
        "corrupt": ("data.max_corrupt_images=2",),
    }
    runs = {}
    for name, overrides in fields.items():
        workdir, log = directory / name, directory / f"{name}.log"
        process = shell.start(shell.training(workdir, *overrides), log)
        runs[name] = SideRun(workdir, log, process)
    yield runs
    for run in runs.values():
        run.process.kill()
        run.process.wait()


def _has_record(workdir: pathlib.Path, kind: str, step: int) -> bool:
    path = workdir / "metrics.jsonl"
    return path.exists() and f'"kind": "{kind}", "step": {step},'.encode() in path.read_bytes()


def _is_saving(workdir: pathlib.Path) -> bool:
    names = [path.name for path in (workdir / "checkpoints").glob("*")]
    return any(not name.isdigit() for name in names)


# When a run is killed: once this holds, after a random time up to so many seconds.
MOMENTS: dict[str, tuple[Callable[[pathlib.Path], bool], float]] = {
    "compiling": (lambda workdir: True, 2.0),
    "in a step": (lambda workdir: _has_record(workdir, "train", 2), 0.2),
    "saving": (_is_saving, 1.0),
    # The last evaluation, or the save after it.
    "evaluating": (lambda workdir: _has_record(workdir, "train", STEPS), 1.0),
}


@pytest.mark.usefixtures("side_runs")
def test_kills_change_nothing(shell: Shell, finished_run: FinishedRun, tmp_path: pathlib.Path):
    """SIGKILL at four moments, each time the same command again: bitwise the run never killed."""
    workdir, log = tmp_path / "run", tmp_path / "log"
    rng = np.random.default_rng()  # other times in every test run; a failure prints them
    for moment, (holds, secs) in MOMENTS.items():
        delay = rng.uniform(0, secs)
        process = shell.start(shell.training(workdir), log)
        deadline = time.monotonic() + 200
        # What a killed run wrote beyond its last checkpoint is gone when "compiling" is said.
        while not ("compiling" in log.read_text() and holds(workdir)):
            assert process.poll() is None, f"{moment}: {log.read_text()}"
            assert time.monotonic() < deadline, f"{moment}: {log.read_text()}"
            time.sleep(0.003)
        time.sleep(delay)
        process.kill()
        # At the end it may have been too late.
        code = process.wait()
        print(f"killed {delay:.3f} s after {moment}: exit code {code}\n{log.read_text()}")
        assert code == -9 or (moment == "evaluating" and code == 0)
    done = shell.run(shell.training(workdir))
    assert done.returncode == 0, done.stderr
    assert_same_outcome(workdir, finished_run.workdir)
    # No save was left half done.
    assert all(path.name.isdigit() for path in (workdir / "checkpoints").glob("*"))


def test_the_command_of_a_finished_run_changes_nothing(
    shell: Shell, finished_run: FinishedRun, tmp_path: pathlib.Path
):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run.workdir, workdir)
    done = shell.run(shell.training(workdir))
    assert done.returncode == 0, done.stderr
    assert f"continuing after step {STEPS} of {STEPS}" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("done: top-1 ")
    assert_same_outcome(workdir, finished_run.workdir)


def test_fine_tuning_starts_from_everything_but_the_head(side_runs, finished_run: FinishedRun):
    _, said = side_runs["diverging"].end()
    with Checkpoints(finished_run.workdir) as checkpoints:
        best = checkpoints.best_step()
    assert f"weights from step {best} of {finished_run.workdir}; " in said
    pretrained, _ = averages(finished_run.workdir, best)
    # The first step had the learning rate 0 and took its statistics from the pretrained network.
    _, started = averages(side_runs["diverging"].workdir, 1)
    theirs, ours = leaves(pretrained), leaves(started)
    assert theirs.keys() == ours.keys()
    heads = {name for name in ours if "classifier" in name}
    assert len(heads) == 2
    for name in ours.keys() - heads:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    num_coarse = len(label_names(NUM_CLASSES)["coarse_label"])
    kernel = started["params"]["classifier"]["kernel"]
    assert kernel.shape[1] == num_coarse < NUM_CLASSES
    assert 0 < kernel.std() < 1
    assert f"fresh: params/classifier/kernel [1280, {num_coarse}]" in said
    assert f"fresh: params/classifier/bias [{num_coarse}]" in said
    assert said.count("fresh: ") == 2


def told_last(said: str) -> str:
    """The sentence that a run ended with."""
    assert "Traceback" not in said
    (sentence,) = re.findall(r"^pnet_jax: .*\n\Z", said, re.MULTILINE)
    return sentence


def test_a_diverged_run_stops_and_keeps_the_last_good_checkpoint(side_runs):
    code, said = side_runs["diverging"].end()
    assert code == 1
    assert told_last(said).startswith("pnet_jax: Training diverged: ")
    workdir = side_runs["diverging"].workdir
    assert saved_steps(workdir) == [1]
    for tree in averages(workdir, 1):
        for name, leaf in leaves(tree).items():
            assert np.isfinite(leaf).all(), name
            assert np.abs(leaf).max() < 1e3, name


def test_corrupt_images_are_named_and_skipped(finished_run: FinishedRun, data_dir: pathlib.Path):
    """The data set has three corrupt training images and one evaluation image, within the limit."""
    dataset = open_dataset("emoji", str(data_dir), label="label", build_demo=print)
    named = re.findall(r"corrupt image, skipped: (\S+)", finished_run.stderr)
    for split, corrupt in CORRUPT.items():
        records = dataset.split(split)
        for i in corrupt:
            assert named.count(records[i].file_name) >= 2  # in each epoch and each evaluation
    assert len(set(named)) == sum(len(corrupt) for corrupt in CORRUPT.values())


def test_too_many_corrupt_images(side_runs):
    code, said = side_runs["corrupt"].end()
    assert code == 1
    sentence = told_last(said)
    assert sentence.startswith("pnet_jax: 3 training images could not be decoded, more than")
    assert "config.data.max_corrupt_images = 2" in sentence
