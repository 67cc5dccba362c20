"""Where the wall time of a run went, over all its starts: to training, and to what else.

`goodput.json` is read by the next start of the run, so that kills and the time after them count.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pnet_jax.report import atomic

GOODPUT_FILE = "goodput.json"
# Enough for percentiles, and for a file that is small.
_MAX_STEPS = 1000


class Goodput:
    """Sums of seconds by what a run was doing.

    A start of the run reads what the earlier ones wrote. Their training after the checkpoint it
    goes on from becomes "repeated", and the time since they last wrote "away".

    Args:
      workdir: of the run; None keeps no file, as in all processes but one.
      resume_step: that of the restored checkpoint, 0 for a run from the start.
      since: when this start of the run began, in Unix seconds; now if None.
      clock: Unix time in seconds.
    """

    def __init__(
        self,
        workdir: Path | None,
        *,
        resume_step: int,
        since: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = None if workdir is None else workdir / GOODPUT_FILE
        self._clock = clock
        self._since = clock() if since is None else since
        self._doing = "starting"
        self._step_began = self._since
        self._step_secs: list[float] = []
        earlier = _read(self._path)
        self._secs: dict[str, float] = earlier.get("secs", {})
        self._trained_secs: dict[str, float] = earlier.get("trained_secs_by_step", {})
        if earlier:
            trained = self._secs.get("training", 0.0)
            kept = min(trained, self._trained_secs.get(str(resume_step), 0.0))
            self._secs["training"] = kept
            self._add("repeated", trained - kept)
            self._add("away", max(0.0, self._since - earlier["until_unix_secs"]))

    def enter(self, doing: str) -> None:
        """From now on the time counts as `doing`."""
        now = self._clock()
        self._add(self._doing, now - self._since)
        self._doing, self._since = doing, now

    def begin_step(self) -> None:
        """What comes next is the wait for the input of a step."""
        self.enter("input")
        self._step_began = self._since

    def end_step(self) -> None:
        """The step is done; what comes next is the log, small enough to count as training."""
        self.enter("training")
        self._step_secs = [*self._step_secs[1 - _MAX_STEPS :], self._since - self._step_began]

    def spent(self, doing: str) -> float:
        """Seconds so far that counted as `doing`, those since the last change left out."""
        return self._secs.get(doing, 0.0)

    def step_percentiles(self) -> dict[str, float]:
        """Seconds of the last thousand steps, input included: the half, most, and the longest."""
        if not self._step_secs:
            return {}
        values = np.percentile(self._step_secs, [50, 90, 99, 100])
        names = ("step_secs_p50", "step_secs_p90", "step_secs_p99", "step_secs_max")
        return {name: float(value) for name, value in zip(names, values, strict=True)}

    def saved(self, step: int) -> None:
        """Remembers how much training a checkpoint stands for, and writes the file."""
        self.enter(self._doing)
        self._trained_secs[str(step)] = self._secs.get("training", 0.0)
        for old in list(self._trained_secs)[:-100]:
            del self._trained_secs[old]
        self.write()

    def write(self) -> None:
        """Writes the file as of now."""
        self.enter(self._doing)
        if self._path is None:
            return
        content = {
            **summarize(self._secs),
            "steps": self.step_percentiles(),
            "trained_secs_by_step": self._trained_secs,
            "until_unix_secs": self._since,
        }
        atomic.replace_file(self._path, json.dumps(content, indent=2).encode() + b"\n")

    def _add(self, doing: str, secs: float) -> None:
        self._secs[doing] = self._secs.get(doing, 0.0) + secs


def read_goodput(workdir: Path) -> dict[str, Any] | None:
    """What a summary tells of the time: `goodput`, `wall_secs`, `secs` and `steps`."""
    content = _read(workdir / GOODPUT_FILE)
    told = ("goodput", "wall_secs", "secs", "steps")
    return {name: content[name] for name in told} if content else None


def summarize(secs: dict[str, float]) -> dict[str, Any]:
    """The share of training in all seconds, their sum, and its parts, the largest first."""
    wall = sum(secs.values())
    parts = sorted(secs.items(), key=lambda part: -part[1])
    return {
        "goodput": round(secs.get("training", 0.0) / wall, 4) if wall else 0.0,
        "wall_secs": round(wall, 3),
        "secs": {doing: round(part, 3) for doing, part in parts},
    }


def _read(path: Path | None) -> dict[str, Any]:
    """The file's content; empty if there is none, or none that can be read."""
    try:
        content = json.loads(path.read_bytes()) if path is not None else {}
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and "until_unix_secs" in content else {}
