"""The progress of a training run: a bar on a terminal, a plain line now and then in a log file."""

import collections
import os
import sys
import time
import types
from collections.abc import Callable
from typing import Self, TextIO

import tqdm

_RATE_WINDOW_SECS = 30.0


def _is_terminal(stream: TextIO) -> bool:
    try:
        # Some containers' terminals have no size; tqdm would draw nothing at all on them.
        return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0
    except OSError:
        return False


class Progress:
    """Shows step, images/s, time left and the latest numbers of a run of `total_steps` steps.

    On a terminal this is a tqdm bar. Elsewhere (a log file, a pipe) it is one plain line at the
    first update, at most one every `plain_interval_secs` after it, and one at the end.

    The rate is that of the last half minute and starts with the first update, so that the
    compilation of the step does not count.

    Args:
      total_steps: the step at which the run ends.
      initial_step: the step at which it starts or resumes.
      images_per_step: the global batch size; None tells no rate, if steps are of other things.
      description: what runs, in front of every line.
      stream: where to show it; standard error if None.
      plain_interval_secs: the pause between two plain lines.
      clock: seconds from any origin.

    Raises:
      ValueError: if `total_steps` is not positive.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        initial_step: int = 0,
        images_per_step: int | None,
        description: str,
        stream: TextIO | None = None,
        plain_interval_secs: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if total_steps < 1:
            raise ValueError(f"a run has at least one step, not {total_steps}")
        self._total_steps = total_steps
        self._step = initial_step
        self._images_per_step = images_per_step
        self._description = description
        self._stream = sys.stderr if stream is None else stream
        self._plain_interval_secs = plain_interval_secs
        self._clock = clock
        self._points: collections.deque[tuple[float, int]] = collections.deque()
        self._postfix: dict[str, float | str] = {}
        self._printed_secs: float | None = None
        self._printed_line = ""
        self._bar: tqdm.tqdm | None = None
        if _is_terminal(self._stream):
            self._bar = tqdm.tqdm(
                total=total_steps,
                initial=initial_step,
                desc=description,
                file=self._stream,
                dynamic_ncols=True,
                miniters=1,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n}/{total} steps{postfix}",
            )

    def update(self, step: int, **postfix: float | str) -> None:
        """Moves to `step` and shows the newest numbers; those not given again stay as they were.

        Give Python floats (shown with four digits) or strings: a JAX array would make the host
        wait for the device. Raises ValueError for a step after the last.
        """
        if step > self._total_steps:
            raise ValueError(f"step {step} is after the last of {self._total_steps}")
        now = self._clock()
        advance, self._step = step - self._step, step
        self._postfix |= postfix
        self._points.append((now, step))
        # The two newest points always stay: a step can take longer than the window.
        while len(self._points) > 2 and now - self._points[0][0] > _RATE_WINDOW_SECS:
            self._points.popleft()
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(self._state()), refresh=False)
            self._bar.update(advance)
            if advance <= 0:  # the same step with new numbers; tqdm redraws for progress only
                self._bar.refresh()
        elif self._printed_secs is None or now - self._printed_secs >= self._plain_interval_secs:
            self._print_state(now)

    def write(self, line: str) -> None:
        """Prints a line of its own, above the bar."""
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Shows the last state and leaves it on the screen."""
        if self._bar is not None:
            self._bar.close()
        elif self._points:
            self._print_state(self._clock())

    def _print_state(self, now: float) -> None:
        done = f"{self._description}: step {self._step:,}/{self._total_steps:,}"
        percent = f"({100 * self._step // self._total_steps}%)"
        line = ", ".join([f"{done} {percent}", *self._state()])
        if line != self._printed_line:
            print(line, file=self._stream, flush=True)
        self._printed_secs, self._printed_line = now, line

    def _state(self) -> list[str]:
        (first_secs, first_step), (last_secs, last_step) = self._points[0], self._points[-1]
        state = []
        if last_secs > first_secs and last_step > first_step:
            steps_per_sec = (last_step - first_step) / (last_secs - first_secs)
            if self._images_per_step is not None:
                state.append(f"{steps_per_sec * self._images_per_step:,.0f} images/s")
            if last_step < self._total_steps:
                left_secs = (self._total_steps - last_step) / steps_per_sec
                state.append(f"{tqdm.tqdm.format_interval(left_secs)} left")
        for name, value in self._postfix.items():
            text = f"{value:.4g}" if isinstance(value, float) else value
            state.append(f"{name}={text}")
        return state

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self.close()
