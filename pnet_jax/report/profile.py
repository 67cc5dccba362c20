"""Profiler traces of chosen steps, for TensorBoard's profile plugin or xprof."""

import types
from pathlib import Path
from typing import Self

import jax

from pnet_jax.config import ProfileConfig


class Profile:
    """Traces the steps that the configuration names into `workdir/profile`; a context.

    Every process writes its own part. A run that resumes within the steps traces what is left.
    """

    def __init__(self, config: ProfileConfig, workdir: Path) -> None:
        first, last = config.first_step, config.first_step + config.num_steps - 1
        self._steps = range(first, last + 1) if first > 0 else range(0)
        self._directory = workdir / "profile"
        self._tracing = False

    def before(self, step: int) -> None:
        """Begins or ends the trace where `step` asks for it."""
        if self._tracing == (step in self._steps):
            return
        if self._tracing:
            self._stop()
        else:
            jax.profiler.start_trace(self._directory)
            self._tracing = True

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._tracing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        if self._tracing:
            self._stop()
