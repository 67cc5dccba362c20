"""Calls come in turns, and the ratio is that of neighbours."""

import os

import pytest

from pnet_jax.bench.timing import interleaved, machine, median_ratio, use_cores


def test_calls_come_in_turns():
    calls = []
    secs = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert {name: len(times) for name, times in secs.items()} == {"a": 2, "b": 2}
    assert min(min(times) for times in secs.values()) > 0


def test_a_slow_spell_leaves_the_ratio_alone():
    assert median_ratio([2.0, 20.0, 2.2], [1.0, 10.0, 1.0]) == pytest.approx(2.0)


def test_machine_names_what_a_table_needs():
    assert set(machine()) == {"processor", "cores", "jax", "date"}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_use_cores_keeps_the_process_on_one():
    before = os.sched_getaffinity(0)
    try:
        use_cores(1)
        assert len(os.sched_getaffinity(0)) == 1
    finally:
        os.sched_setaffinity(0, before)
