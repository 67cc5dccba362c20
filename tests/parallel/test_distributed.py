"""One of the processes of a run by itself; whole runs are in `tests/test_processes.py`."""

import re
import subprocess
import sys
import textwrap
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
    time.sleep(0.0 if index else 0.01)
    raise UserError("The same mistake.")
"""


def test_a_mistake_in_all_is_told_once_and_at_once():
    """Process 0 makes it just when process 1 tells of its own."""
    first, second = two_processes(_MISTAKEN)
    _, told = second.communicate(timeout=60)
    other_ended = time.monotonic()
    _, told_by_first = first.communicate(timeout=60)
    assert time.monotonic() - other_ended < 3
    assert [first.returncode, second.returncode] == [2, 2]
    assert told == told_by_first == "pnet_jax: The same mistake.\n"


_FROZEN = """
    if index == FROZEN:
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(60)
"""


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_process_is_named(frozen: int):
    ranks = two_processes(_FROZEN.replace("FROZEN", str(frozen)))
    _, told = ranks[1 - frozen].communicate(timeout=60)
    ranks[frozen].kill()
    ranks[frozen].communicate()
    assert ranks[1 - frozen].returncode == 1
    assert re.match(
        rf"pnet_jax: Process {frozen} \(.+\) is gone \(nothing was heard of it for 4 s\); ", told
    )


def two_processes(body: str) -> list[subprocess.Popen[str]]:
    """Both have met, then run the body."""
    script = _SCRIPT + textwrap.indent(textwrap.dedent(body), "    ")
    address = f"127.0.0.1:{free_port()}"
    return [
        subprocess.Popen(
            [sys.executable, "-c", script, address, str(index)], stderr=subprocess.PIPE, text=True
        )
        for index in (0, 1)
    ]


_SCRIPT = """
import os, signal, sys, time
from pnet_jax.config import DistributedConfig
from pnet_jax.errors import UserError
from pnet_jax.parallel.distributed import Processes
from pnet_jax.parallel.place import Place

index = int(sys.argv[2])
with Processes(DistributedConfig(silence_secs=4.0), Place(sys.argv[1], index, 2)) as processes:
    processes.connect({})
"""
