"""One of the processes of a run by itself; whole runs are in `tests/test_processes.py`."""

import subprocess
import sys
import time

import pytest

from pnet_jax.config import DistributedConfig
from pnet_jax.parallel.distributed import Processes
from pnet_jax.parallel.place import Place
from tests.processes import free_port

# The time after which a process ends itself must not come in a test.
CONFIG = DistributedConfig(preemption_secs=1e6)


class Ended(Exception):
    """In place of the end of the process."""


@pytest.fixture(autouse=True)
def ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr("os._exit", end)


@pytest.mark.parametrize("index", [0, 1, 3])
def test_sigterm_before_the_processes_have_met(index: int, capsys: pytest.CaptureFixture[str]):
    processes = Processes(CONFIG, Place("host:1", index, 4))
    with pytest.raises(Ended, match="42"):
        processes._on_sigterm()
    assert capsys.readouterr().err == "pnet_jax: SIGTERM came before the run began.\n"


def test_sigterm_to_the_only_process_before_its_first_step(capsys: pytest.CaptureFixture[str]):
    processes = Processes(CONFIG, place=None)
    with pytest.raises(Ended, match="42"):
        processes._on_sigterm()
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("pnet_jax: SIGTERM came to process 0 (")
    assert second == (
        "pnet_jax: Stopped by SIGTERM before a step was made; the same command begins there again."
    )


def test_sigterm_in_a_step_stops_the_next_one(capsys: pytest.CaptureFixture[str]):
    processes = Processes(CONFIG, place=None)
    assert not processes.points.stop_here("step 1")
    for _ in range(3):
        processes._on_sigterm()
    assert processes.points.stop_here("step 2")
    assert capsys.readouterr().err.count("SIGTERM came to") == 1


def test_the_only_process_agrees_with_itself():
    processes = Processes(CONFIG, place=None)
    processes.agree("the data set", "a")
    processes.agree("the data set", "b")


_MISTAKEN = """
import sys, time
from pnet_jax.config import DistributedConfig
from pnet_jax.errors import UserError
from pnet_jax.parallel.distributed import Processes
from pnet_jax.parallel.place import Place

index = int(sys.argv[2])
with Processes(DistributedConfig(), Place(sys.argv[1], index, 2)) as processes:
    processes.connect({})
    time.sleep(0.0 if index else 0.01)
    raise UserError("The same mistake.")
"""


def test_a_mistake_in_all_is_told_once_and_at_once():
    """Process 0 makes it just when process 1 tells of its own."""
    address = f"127.0.0.1:{free_port()}"
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", _MISTAKEN, address, str(index)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1)
    ]
    _, told = ranks[1].communicate(timeout=60)
    other_ended = time.monotonic()
    _, told_by_0 = ranks[0].communicate(timeout=60)
    assert time.monotonic() - other_ended < 3
    assert [rank.returncode for rank in ranks] == [2, 2]
    assert told == told_by_0 == "pnet_jax: The same mistake.\n"
