"""Traces of the steps that a configuration names."""

from pathlib import Path

import pytest

from pnet_jax.config import ProfileConfig
from pnet_jax.report.profile import Profile


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    monkeypatch.setattr("jax.profiler.start_trace", lambda path: made.append(f"start {path.name}"))
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: made.append("stop"))
    return made


def walk(config: ProfileConfig, first: int, last: int, calls: list[str]) -> None:
    with Profile(config, Path("run")) as profile:
        for step in range(first, last + 1):
            profile.before(step)
            calls.append(str(step))


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (3, 8, ["3", "start profile", "4", "5", "stop", "6", "7", "8"]),
        # A run that resumes within the steps, and one that ends there.
        (5, 6, ["start profile", "5", "stop", "6"]),
        (3, 4, ["3", "start profile", "4", "stop"]),
        (6, 7, ["6", "7"]),
    ],
)
def test_the_steps_that_are_traced(
    first: int, last: int, expected: list[str], calls: list[str]
) -> None:
    walk(ProfileConfig(first_step=4, num_steps=2), first, last, calls)
    assert calls == expected


def test_by_default_nothing_is_traced(calls: list[str]) -> None:
    walk(ProfileConfig(), 1, 3, calls)
    assert calls == ["1", "2", "3"]
