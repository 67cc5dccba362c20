"""Tasks spread over processes; if one dies, it is known what it was at work on."""

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pnet_jax.errors import UserError

_NAME_BYTES = 1000


class Status:
    """What a worker tells while it works: the file it is at, and how many it has done."""

    def __init__(self, context: Any):
        self._name = context.RawArray(ctypes.c_char, _NAME_BYTES)
        self._count = context.RawValue(ctypes.c_uint64, 0)

    def begin(self, name: str) -> None:
        """Says which file comes next."""
        self._name.value = name.encode(errors="replace")[: _NAME_BYTES - 1]
        self._count.value += 1

    @property
    def name(self) -> str:
        return self._name.value.decode(errors="replace")

    @property
    def count(self) -> int:
        return int(self._count.value)


Function = Callable[[Any, Status], Any]


def run(
    function: Function,
    tasks: Sequence[Any],
    processes: int,
    on_progress: Callable[[int], None] = lambda count: None,
) -> Iterator[Any]:
    """Yields the results as they come.

    Args:
      function: of a task and a `Status`; a function of a module.
      processes: 1 works in this process.
      on_progress: called every half second or oftener with the number of files begun.

    Raises:
      UserError: if a process is killed, or what a task raised.
    """
    context = multiprocessing.get_context("spawn")  # a fork of a running JAX may hang
    if processes <= 1 or len(tasks) <= 1:
        status = Status(context)
        for task in tasks:
            yield function(task, status)
            on_progress(status.count)
        return
    waiting = list(reversed(tasks))
    with contextlib.ExitStack() as stack:
        workers = {}
        statuses = []
        for _ in range(min(processes, len(tasks))):
            ours, theirs = context.Pipe()
            status = Status(context)
            process = context.Process(target=_work, args=(function, theirs, status), daemon=True)
            process.start()
            theirs.close()
            stack.callback(process.join)
            stack.callback(process.terminate)
            workers[ours] = (process, status)
            statuses.append(status)
            ours.send(waiting.pop())
        while workers:
            for pipe in multiprocessing.connection.wait(list(workers), timeout=0.5):
                assert isinstance(pipe, multiprocessing.connection.Connection)
                process, status = workers[pipe]
                try:
                    result, error = pipe.recv()
                except (EOFError, OSError):
                    process.join()
                    raise UserError(_death(process.exitcode, status.name)) from None
                if error is not None:
                    raise error
                yield result
                if waiting:
                    pipe.send(waiting.pop())
                else:
                    pipe.send(None)
                    del workers[pipe]
            on_progress(sum(status.count for status in statuses))


def _death(code: int | None, name: str) -> str:
    how = f"ended with code {code}"
    if code is not None and code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    return (
        f"A worker process {how} while it was at {name or 'its start'}; if memory was short, take "
        f"fewer --processes. The same command goes on from here."
    )


def _work(function: Function, pipe: Any, status: Status) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    while (task := pipe.recv()) is not None:
        try:
            answer: tuple[Any, Exception | None] = (function(task, status), None)
        except Exception as error:
            answer = (None, error)
        pipe.send(answer)
