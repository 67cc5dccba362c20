"""Points that all processes pass, and SIGTERM."""

import os
import queue
import signal
import threading
import time

from pnet_jax.parallel.preemption import Points, Sigterm


def walk(points: Points, passed: list[str]) -> None:
    """Passes points until told to stop."""
    while not points.stop_here(f"step {len(passed) + 1}"):
        passed.append(f"step {len(passed) + 1}")
        time.sleep(0.001)


def test_all_stop_where_the_one_that_is_furthest_holds():
    """Three threads at paces of their own stand for three processes."""
    many = [Points() for _ in range(3)]
    passed: list[list[str]] = [[] for _ in many]
    walkers = [threading.Thread(target=walk, args=pair) for pair in zip(many, passed, strict=True)]
    held = []
    for walker, points in zip(walkers, many, strict=True):
        walker.start()
        time.sleep(0.02)
        held.append(points.hold())
    time.sleep(0.05)
    # Whoever holds passes no further point.
    assert [points.now().passed for points in many] == held
    for points in many:
        points.stop_after(max(held))
    for walker in walkers:
        walker.join(timeout=10)
    assert [len(steps) for steps in passed] == [max(held)] * 3
    assert many[0].now().doing == f"step {max(held)}"


def test_stopping_before_the_first_point():
    points = Points()
    assert points.now()[:3] == (0, 0, "starting")
    assert points.hold() == 0
    points.stop_after(0)
    assert points.stop_here("step 1")
    assert points.stop_here("step 1")


def test_who_waits_for_input_is_behind_who_waits_for_devices():
    ahead, behind = Points(), Points()
    for points in (ahead, behind):
        points.stop_here("step 1")
    ahead.fed()
    assert ahead.now().progress > behind.now().progress
    behind.fed()
    assert ahead.now().progress == behind.now().progress
    behind.stop_here("step 2")
    assert ahead.now().progress < behind.now().progress


def test_sigterm_is_told_each_time_and_to_this_context_only():
    told: queue.SimpleQueue[int] = queue.SimpleQueue()
    earlier = signal.getsignal(signal.SIGTERM)
    with Sigterm(lambda: told.put(threading.get_ident())):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            # By a thread that the main one cannot keep from running.
            assert told.get(timeout=5) != threading.get_ident()
    assert signal.getsignal(signal.SIGTERM) is earlier
    assert told.empty()
