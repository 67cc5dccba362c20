"""Checkpoints come back bit for bit, the right ones stay, and reading writes nothing."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from pnet_jax.checkpoint.manager import Checkpoints
from pnet_jax.config import CheckpointConfig
from pnet_jax.parallel.mesh import make_mesh
from pnet_jax.parallel.sharding import parse_rules, plan_sharding
from pnet_jax.training.state import TrainState, create_state

READ_WRITE = CheckpointConfig(keep_last=2, keep_best=1)


def shardings_on(mesh: Mesh, state: Any) -> Any:
    return plan_sharding(mesh, state, state.params, parse_rules(".*=fsdp")).state


def state_on(mesh: Mesh, seed: int = 0, features: int = 256) -> TrainState:
    """A state of random numbers, the optimizer's too, with one matrix large enough to split."""
    variables = {
        "params": {"layer": {"kernel": np.zeros((128, features)), "bias": np.zeros(features)}},
        "batch_stats": {"bn": {"mean": np.zeros(3), "var": np.zeros(3)}},
    }
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    variables = jax.tree.map(np.float32, variables)
    rng = np.random.default_rng(seed)

    def random(leaf: Any) -> np.ndarray:
        return np.asarray(rng.normal(size=leaf.shape) * 100, leaf.dtype)

    shapes = jax.eval_shape(lambda v: create_state(v, optimizer), variables)
    return jax.device_put(jax.tree.map(random, shapes), shardings_on(mesh, shapes))


def target_on(mesh: Mesh, state: TrainState) -> Any:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        shardings_on(mesh, state),
    )


def assert_equal(a: Any, b: Any) -> None:
    """Bit for bit, with the same structure and dtypes."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert left.dtype == right.dtype
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


@pytest.fixture(scope="module")
def state() -> TrainState:
    return state_on(make_mesh("data=1", jax.devices()[:1]))


@pytest.mark.parametrize("spec", ["fsdp=8", "data=8", "data=2,fsdp=4"])
def test_a_split_state_comes_back_bit_for_bit_on_any_mesh(tmp_path: Path, spec: str) -> None:
    state = state_on(make_mesh("fsdp=8"))
    host = jax.device_get(state)
    with Checkpoints(tmp_path, READ_WRITE) as checkpoints:
        checkpoints.save(7, state, {"top1": 0.5})
        # The next step gives the state's buffers away at once.
        jax.tree.map(lambda leaf: leaf.delete(), state)
    target = target_on(make_mesh(spec), host)
    with Checkpoints(tmp_path, READ_WRITE) as checkpoints:
        restored = checkpoints.restore(7, target)
    assert_equal(restored, host)
    for leaf, wanted in zip(jax.tree.leaves(restored), jax.tree.leaves(target), strict=True):
        assert leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)
    kernel = restored.opt_state[1][0].mu["layer"]["kernel"]
    columns = {"fsdp=8": 32, "data=8": 256, "data=2,fsdp=4": 64}[spec]
    assert kernel.addressable_shards[0].data.shape == (128, columns)


def test_each_step_holds_its_own_state(tmp_path: Path) -> None:
    mesh = make_mesh("data=1", jax.devices()[:1])
    states = {step: state_on(mesh, seed=step) for step in (1, 2)}
    with Checkpoints(tmp_path, READ_WRITE) as checkpoints:
        for step, state in states.items():
            checkpoints.save(step, state, None)
        for step, state in states.items():
            assert_equal(checkpoints.restore(step, target_on(mesh, state)), state)


@pytest.mark.parametrize(
    ("keep_last", "keep_best", "top1s", "stay", "best"),
    [
        # The last two, and the best by top-1: the fourth's 0.7.
        (2, 1, [0.1, 0.5, None, 0.7, 0.2, None, 0.3], [4, 6, 7], 4),
        # The best is among the last.
        (2, 1, [0.1, 0.5, 0.7], [2, 3], 3),
        (1, 2, [0.5, 0.1, 0.6, 0.2, None], [1, 3, 5], 3),
        (3, 0, [0.9, 0.1, 0.2, 0.3], [2, 3, 4], 4),
        # The later of two equals.
        (1, 1, [0.5, 0.5, 0.1, 0.1], [2, 4], 2),
        # None was evaluated: the latest passes for the best.
        (2, 1, [None, None, None], [2, 3], 3),
    ],
)
def test_the_last_and_the_best_stay(
    tmp_path: Path,
    state: TrainState,
    keep_last: int,
    keep_best: int,
    top1s: list[float | None],
    stay: list[int],
    best: int,
) -> None:
    config = CheckpointConfig(keep_last=keep_last, keep_best=keep_best)
    with Checkpoints(tmp_path, config) as checkpoints:
        for step, top1 in enumerate(top1s, start=1):
            checkpoints.save(step, state, None if top1 is None else {"top1": top1, "loss": 9.0})
    assert sorted(os.listdir(tmp_path / "checkpoints")) == [str(step) for step in stay]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == stay
        assert checkpoints.latest_step() == len(top1s)
        assert checkpoints.best_step() == best


def test_the_best_of_an_earlier_start_stays(tmp_path: Path, state: TrainState) -> None:
    for step, top1 in enumerate([0.9, 0.1, None, 0.2], start=1):
        with Checkpoints(tmp_path, READ_WRITE) as checkpoints:
            checkpoints.save(step, state, None if top1 is None else {"top1": top1})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1, 3, 4]
        assert checkpoints.best_step() == 1


def test_what_a_killed_run_left_half_saved_is_ignored_and_removed(
    tmp_path: Path, state: TrainState
) -> None:
    with Checkpoints(tmp_path, READ_WRITE) as checkpoints:
        checkpoints.save(3, state, None)
    directory = tmp_path / "checkpoints"
    unfinished = directory / "5.orbax-checkpoint-tmp"
    shutil.copytree(directory / "3", unfinished)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 3
    assert unfinished.exists()  # a reader leaves another run's files alone
    with Checkpoints(tmp_path, READ_WRITE) as checkpoints:
        assert checkpoints.latest_step() == 3
        checkpoints.save(4, state, None)
    assert sorted(os.listdir(directory)) == ["3", "4"]


def test_averages_of_another_network_are_numpy(tmp_path: Path) -> None:
    state = jax.device_get(state_on(make_mesh("fsdp=8"), features=384))
    with Checkpoints(tmp_path, READ_WRITE) as checkpoints:
        checkpoints.save(5, state_on(make_mesh("fsdp=8"), features=384), {"top1": 0.1})
    with Checkpoints(tmp_path) as checkpoints:
        ema, raw = checkpoints.restore_averages(5)
    for leaf in jax.tree.leaves((ema, raw)):
        assert type(leaf) is np.ndarray
    assert_equal(ema, state.ema)
    assert_equal(raw, {"params": state.params, "batch_stats": state.batch_stats})


def test_reading_where_nothing_is_writes_nothing(tmp_path: Path) -> None:
    for workdir in (tmp_path, tmp_path / "absent"):
        with Checkpoints(workdir) as checkpoints:
            assert checkpoints.latest_step() is None
            assert checkpoints.best_step() is None
            assert checkpoints.steps() == []
    assert list(tmp_path.iterdir()) == []


def test_orbax_is_silent_but_for_errors(
    tmp_path: Path, state: TrainState, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="absl"):
        with Checkpoints(tmp_path, READ_WRITE) as checkpoints:
            for step in range(1, 5):
                checkpoints.save(step, state, None)
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.restore_averages(4)
    assert [record.getMessage() for record in caplog.records] == []

    def log(level: int, pathname: str) -> None:
        record = logging.LogRecord("absl", level, pathname, 1, "told", None, None)
        logging.getLogger("absl").handle(record)

    log(logging.WARNING, "site-packages/orbax/checkpoint/checkpoint_manager.py")
    assert caplog.messages == []
    log(logging.ERROR, "site-packages/orbax/checkpoint/checkpoint_manager.py")
    log(logging.WARNING, "site-packages/grain/record.py")
    assert caplog.messages == ["told", "told"]
