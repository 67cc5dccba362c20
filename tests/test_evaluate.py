"""Sums over a split are exact, and a checkpoint scores what training logged for it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.checkpoint.manager import Checkpoints
from pnet_jax.evaluate import evaluate, main
from pnet_jax.report.jsonl import read_records
from tests.tiny_run import EVAL_STEPS, NUM_EVAL, STEPS, FinishedRun, Shell

pytest_plugins = ["tests.tiny_run_plugin"]


@jax.jit
def eval_step(variables, step, batch):
    """Sums of a "network" whose answer is right where the image is even."""
    right = (batch["image"] % 2 == 0) & (batch["weight"] > 0)
    return {
        "count": jnp.sum(batch["weight"] > 0),
        "top1": jnp.sum(right),
        "top5": jnp.sum(batch["weight"] > 0),
        "loss": jnp.sum(batch["weight"] * variables),
    }


def batches(num_examples: int, size: int):
    for start in range(0, num_examples, size):
        images = np.arange(start, start + size)
        yield {"image": images, "weight": (images < num_examples).astype(np.float32)}


@pytest.mark.parametrize("size", [1, 4, 7, 10])
def test_sums_over_batches_are_exact(size):
    scores = evaluate(eval_step, 0.1, jnp.int32(3), batches(7, size), num_examples=7)
    assert scores == {
        "loss": pytest.approx(0.1, abs=1e-7),
        "top1": 4 / 7,
        "top5": 1.0,
        "count": 7,
    }
    assert type(scores["count"]) is int


def test_a_count_that_does_not_fit_the_split_is_an_error():
    with pytest.raises(RuntimeError, match="counted 6 images of a split of 7"):
        evaluate(eval_step, 0.1, jnp.int32(3), batches(6, 4), num_examples=7)


def logged(finished_run: FinishedRun, step: int) -> dict[str, float]:
    (record,) = (
        record
        for record in read_records(finished_run.workdir / "metrics.jsonl")
        if (record.kind, record.step) == ("eval", step)
    )
    return {
        name.removeprefix("eval/"): value
        for name, value in record.scalars.items()
        if name != "epoch"
    }


def test_a_checkpoint_scores_what_training_logged(shell: Shell, finished_run: FinishedRun):
    """To the last bit, in a process of its own; each number is of all images of the split."""
    command = shell.evaluation(finished_run.workdir, f"--step={STEPS}", "--json")
    done = shell.run(command)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    result = json.loads(done.stdout)
    about = {"step": STEPS, "weights": "ema", "dataset": "emoji", "split": "validation"}
    assert result == about | logged(finished_run, STEPS)
    assert result["count"] == NUM_EVAL
    path = finished_run.workdir / f"evaluation_{STEPS}_ema.json"
    assert json.loads(path.read_text()) == result


def test_the_best_checkpoint_and_its_raw_weights(shell: Shell, finished_run: FinishedRun):
    with Checkpoints(finished_run.workdir) as checkpoints:
        best = checkpoints.best_step()
    assert best in EVAL_STEPS
    done = shell.run(shell.evaluation(finished_run.workdir, "--weights=raw"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"step {best} (raw): top-1 ")
    assert done.stdout.endswith(f" on {NUM_EVAL} images of emoji/validation\n")
    path = finished_run.workdir / f"evaluation_{best}_raw.json"
    raw = json.loads(path.read_text())
    assert raw["count"] == NUM_EVAL
    assert raw["loss"] != logged(finished_run, best)["loss"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--step=7"], "has no checkpoint of step 7; it has: "),
        (["--batch-size=0"], "config.eval_batch_size is 0; it must be above 0."),
        (["--batch-size=7"], "config.eval_batch_size = 7 cannot be split over 8 devices; 8 would"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(finished_run: FinishedRun, arguments, sentence, capsys):
    assert main([f"--workdir={finished_run.workdir}", *arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith("pnet_jax: ")
    assert told.count("\n") == 1
    assert sentence in told


def test_a_directory_without_a_run(tmp_path, capsys):
    assert main([f"--workdir={tmp_path}"]) == 2
    assert "is not the work directory of a run" in capsys.readouterr().err


def test_a_run_without_a_checkpoint(finished_run: FinishedRun, tmp_path, capsys):
    (tmp_path / "config.json").write_bytes((finished_run.workdir / "config.json").read_bytes())
    assert main([f"--workdir={tmp_path}"]) == 2
    assert "has no checkpoint; it has: none." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
