"""A dead worker's file is named; results and errors come through."""

import os
import signal

import pytest

from pnet_jax.data.build import workers
from pnet_jax.errors import UserError


def task(number: int, status: workers.Status) -> int:
    status.begin(f"file {number}")
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 5:
        raise UserError("file 5 is odd")
    return number * number


@pytest.mark.parametrize("processes", [1, 2])
def test_results(processes):
    assert sorted(workers.run(task, [0, 1, 2], processes)) == [0, 1, 4]


def test_a_death_names_its_file():
    with pytest.raises(UserError, match="was killed by SIGKILL while it was at file 3;"):
        list(workers.run(task, [3, 0], 2))


def test_an_error_comes_through():
    with pytest.raises(UserError, match="file 5 is odd"):
        list(workers.run(task, [0, 5], 2))
