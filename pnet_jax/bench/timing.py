"""Times of several functions, taken in turns, so that a noisy machine is noisy to all alike."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


def interleaved(
    functions: Mapping[str, Callable[[], Any]], *, rounds: int, warmup_rounds: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call: A B A B ..., `rounds` of each, waiting for the result each time.

    A function may return arrays, which are waited for, or anything else that is there already.
    """
    secs: dict[str, list[float]] = {name: [] for name in functions}
    for round_index in range(-warmup_rounds, rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            if round_index >= 0:
                secs[name].append(time.perf_counter() - start)
    return secs


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """The median of the ratios of neighbours, which drifts of the machine's speed leave alone."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def use_cores(count: int | None) -> None:
    """Keeps this process on `count` cores; XLA starts as many threads when it is first used."""
    if count is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def machine() -> dict[str, str]:
    """What a table of times must say beside them: processor, cores, versions, date."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": str(cores),
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model n"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
