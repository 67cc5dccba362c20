"""The steps at which a run evaluates, saves and logs."""

import dataclasses
import itertools

import pytest

from pnet_jax.config import CheckpointConfig, Config
from pnet_jax.errors import UserError
from pnet_jax.plan import Plan

CONFIG = dataclasses.replace(
    Config(),
    epochs=2.0,
    global_batch_size=10,
    eval_every_epochs=1.0,
    log_every_steps=4,
    checkpoint=CheckpointConfig(every_steps=7),
)


def test_whole_epochs() -> None:
    plan = Plan.of(CONFIG, 100)
    assert plan == Plan(
        steps_per_epoch=10.0,
        total_steps=20,
        eval_steps=frozenset({10, 20}),
        save_steps=frozenset({7, 10, 14, 20}),
        log_steps=frozenset({4, 7, 8, 10, 12, 14, 16, 20}),
    )


@pytest.mark.parametrize(
    ("images", "epochs", "eval_every_epochs", "total", "eval_steps"),
    [
        # 10.5 steps an epoch: evaluations at 5.25, 10.5, 15.75 and 21, rounded (10.5 to even).
        (105, 2.0, 0.5, 21, {5, 10, 16, 21}),
        # The run ends between two evaluations, and evaluates then.
        (100, 2.5, 1.0, 25, {10, 20, 25}),
        # An evaluation interval longer than the run, and one shorter than a step.
        (100, 2.0, 3.0, 20, {20}),
        (10, 3.0, 0.1, 3, {1, 2, 3}),
        # Fewer images than a batch: an epoch of 0.3 steps, rounded up to one.
        (3, 1.0, 1.0, 1, {1}),
        (3, 0.01, 1.0, 1, {1}),
        # 0.3 * 10 is below 3 in floating point; no evaluation is lost and none comes twice.
        (100, 0.9, 0.3, 9, {3, 6, 9}),
    ],
)
def test_fractional_epochs_and_tiny_runs(
    images: int, epochs: float, eval_every_epochs: float, total: int, eval_steps: set[int]
) -> None:
    config = dataclasses.replace(CONFIG, epochs=epochs, eval_every_epochs=eval_every_epochs)
    plan = Plan.of(config, images)
    assert plan.total_steps == total
    assert plan.eval_steps == eval_steps
    assert plan.steps_per_epoch == images / 10


def test_each_evaluation_is_saved_and_each_save_logged() -> None:
    for images, epochs, every in itertools.product((7, 99, 1001), (0.3, 1, 2.7), (0.05, 0.4, 1, 5)):
        config = dataclasses.replace(CONFIG, epochs=float(epochs), eval_every_epochs=float(every))
        plan = Plan.of(config, images)
        assert plan.eval_steps <= plan.save_steps <= plan.log_steps
        assert plan.log_steps <= set(range(1, plan.total_steps + 1))
        assert plan.total_steps in plan.eval_steps


def test_saves_and_logs_rarer_than_the_run_is_long() -> None:
    config = dataclasses.replace(
        CONFIG, log_every_steps=1000, checkpoint=CheckpointConfig(every_steps=1000)
    )
    plan = Plan.of(config, 100)
    assert plan.eval_steps == plan.save_steps == plan.log_steps == {10, 20}


def test_no_training_images() -> None:
    with pytest.raises(UserError, match=r"^The split 'train' of imagenet22k holds no images; set "):
        Plan.of(CONFIG, 0)
