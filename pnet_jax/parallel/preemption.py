"""SIGTERM, and the point at which all processes stop for it.

All processes pass the same points in the same order: one before each training step and one before
each batch of an evaluation. When one of them is told to go, each holds at its next point and says
how many it has passed; the largest of these numbers is how many all of them pass.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Now(NamedTuple):
    """Where the main thread is.

    `progress` grows with each point, and once more when devices have all they need for what comes
    after it: who has less of it keeps the others waiting.
    """

    passed: int
    progress: int
    doing: str
    secs: float


class Points:
    """The points that the main thread passes, and where it is to stop; for several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._passed = 0
        self._fed = False
        self._since = time.monotonic()
        self._holding = False
        self._stop: int | None = None
        self._doing = "starting"

    def stop_here(self, doing: str) -> bool:
        """Whether to stop instead of `doing` what comes next; blocks while this is being agreed."""
        with self._changed:
            self._changed.wait_for(lambda: not self._holding or self._stop is not None)
            if self._stop is not None and self._passed >= self._stop:
                return True
            self._passed += 1
            self._fed = False
            self._since = time.monotonic()
            self._doing = doing
            return False

    def fed(self) -> None:
        """What follows the last point is up to the devices now."""
        with self._changed:
            self._fed = True

    def hold(self) -> int:
        """Lets the main thread pass no further point, and returns how many it has passed."""
        with self._changed:
            self._holding = True
            return self._passed

    def stop_after(self, points: int) -> None:
        """Lets the main thread pass so many points in all, and then stops it."""
        with self._changed:
            self._stop = points
            self._changed.notify_all()

    def now(self) -> Now:
        """Where the main thread is, and for how many seconds."""
        with self._changed:
            secs = time.monotonic() - self._since
            return Now(self._passed, 2 * self._passed + self._fed, self._doing, secs)


class Sigterm:
    """A context in which SIGTERM calls `told`, every time, instead of ending the process.

    `told` runs in a thread of its own: the main one may be in a compiler, where Python's handlers
    have to wait. Only the main thread can enter.
    """

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told

    def __enter__(self) -> "Sigterm":
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        # The interpreter itself writes the number of each signal that it has a handler for.
        self._earlier_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._earlier: Any = signal.signal(signal.SIGTERM, lambda number, frame: None)
        self._thread = threading.Thread(target=self._wait, name="sigterm", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._earlier)
        signal.set_wakeup_fd(self._earlier_fd)
        os.close(self._writer)
        self._thread.join()
        os.close(self._reader)

    def _wait(self) -> None:
        while number := os.read(self._reader, 1):
            if number[0] == signal.SIGTERM:
                self._told()
