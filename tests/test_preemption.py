"""SIGTERM at chosen points of a run: what is saved, and what the next start makes of it."""

import dataclasses
import pathlib
import runpy

import pytest

from pnet_jax.checkpoint.manager import Checkpoints
from pnet_jax.config import Config
from pnet_jax.errors import Preempted
from pnet_jax.parallel.distributed import Processes
from pnet_jax.parallel.preemption import Points
from pnet_jax.train import train
from tests.processes import STEPS, short_config

pytest_plugins = ["tests.tiny_run_plugin"]


class StopBefore(Points):
    """SIGTERM comes before one certain thing is done."""

    def __init__(self, doing: str) -> None:
        super().__init__()
        self._last = doing

    def stop_here(self, doing: str) -> bool:
        if doing == self._last:
            self.stop_after(self.hold())
        return super().stop_here(doing)


@pytest.fixture(scope="module")
def config(data_dir: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    path = tmp_path_factory.mktemp("config") / "short.py"
    path.write_text(short_config(data_dir))
    return Config.of(runpy.run_path(str(path))["get_config"]())


@pytest.fixture(scope="module")
def undisturbed(config: Config, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    train(config, workdir)
    return workdir


def stopped(config: Config, workdir: pathlib.Path, doing: str) -> str:
    """The sentence a run ends with that is told to stop before `doing`."""
    processes = Processes(config.distributed, place=None)
    processes.points = StopBefore(doing)
    with pytest.raises(Preempted) as caught:
        train(config, workdir, processes)
    return str(caught.value)


@pytest.mark.slow
def test_the_next_start_continues_bit_for_bit(
    config: Config, undisturbed: pathlib.Path, tmp_path: pathlib.Path
):
    """Between two log records, twice in an evaluation, after a save, in the last evaluation."""
    workdir = tmp_path / "run"
    # Between the records of step 6 and step 8.
    assert stopped(config, workdir, "step 8") == (
        f"Stopped by SIGTERM after step 7 of {STEPS}; the same command continues from there."
    )
    for _ in range(2):
        assert "after step 12 of" in stopped(config, workdir, "evaluation after step 12")
        with Checkpoints(workdir) as checkpoints:
            assert checkpoints.latest_step() == 12
            assert not checkpoints.was_evaluated(12)
    assert "after step 16 of" in stopped(config, workdir, "step 17")
    with Checkpoints(workdir) as checkpoints:
        # The evaluation that was owed has been made, and its checkpoint knows of it.
        assert checkpoints.was_evaluated(12)
    last = f"evaluation after step {STEPS}"
    assert f"after step {STEPS} of" in stopped(config, workdir, last)
    train(config, workdir)
    for name in ("metrics.jsonl", "metrics_train.csv", "metrics_eval.csv"):
        assert (workdir / name).read_bytes() == (undisturbed / name).read_bytes(), name
    with Checkpoints(workdir) as ours, Checkpoints(undisturbed) as theirs:
        assert ours.latest_step() == theirs.latest_step() == STEPS
        assert ours.best_step() == theirs.best_step()


def test_nothing_is_saved_before_the_first_step(config: Config, tmp_path: pathlib.Path):
    config = dataclasses.replace(config, epochs=0.6)
    workdir = tmp_path / "run"
    assert "after step 0 of 8;" in stopped(config, workdir, "step 1")
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.steps() == []
