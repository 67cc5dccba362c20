"""Start-up of the processes of a run, and what they tell each other until its end.

Nothing waits without a limit, and whatever goes wrong in one process ends all of them with one
sentence.
"""

import contextlib
import importlib.metadata
import os
import pathlib
import socket
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator, Mapping

import jax

import pnet_jax
from pnet_jax.config import Config, DistributedConfig, fingerprint
from pnet_jax.errors import Preempted, TrainingError, UserError
from pnet_jax.parallel import alive
from pnet_jax.parallel.channel import Link, Message, difference, listen, meet
from pnet_jax.parallel.place import Place, place_from_environment
from pnet_jax.parallel.preemption import Points, Sigterm

PREEMPTED_EXIT_CODE = 42
# A process that hears of the end of another leaves at once; process 0, which JAX's own runtime
# depends on, waits so long for the others to have done so.
_LEAVING_SECS = 5.0


@contextlib.contextmanager
def join(config: Config) -> Iterator["Processes"]:
    """The processes that the environment tells of, brought together; before any use of a device.

    Raises:
      UserError: if the environment is not clear.
      TrainingError: if a process is missing or has other versions or another configuration, or
        process 0 cannot be reached.
    """
    limits = config.distributed
    place = place_from_environment(os.environ, limits.start_secs)
    facts = {
        "the version of pnet_jax": pnet_jax.__version__,
        "the version of jax": jax.__version__,
        "the version of jaxlib": importlib.metadata.version("jaxlib"),
        "the configuration's fingerprint": fingerprint(config),
    }
    with Processes(limits, place) as processes:
        processes.connect(facts)
        yield processes


class Processes:
    """The processes of a run, as one of them sees them; a context for its whole length.

    A mistake, a failure or the loss of one process ends all of them. SIGTERM to one lets all stop
    at the same of `points`.
    """

    def __init__(self, config: DistributedConfig, place: Place | None) -> None:
        """Of the only process if there is no `place`. Nothing is started before the context is."""
        self.points = Points()
        self.index, self.count = (place.index, place.count) if place else (0, 1)
        self._config = config
        self._place = place
        self._host = socket.gethostname()
        # Of all processes, once they have met.
        self._hosts = [self._host]
        self._links: dict[int, Link] = {}
        self._changed = threading.Condition()
        # Of the others, all guarded by `_changed`: when last heard of, how far, who has
        # said good-bye or gone, and who has gone.
        self._heard: dict[int, float] = {}
        self._progress: dict[int, int] = {}
        self._left: set[int] = set()
        self._closed: set[int] = set()
        self._held: dict[int, int] = {}
        self._agreed: set[str] = set()
        self._arrived: dict[str, dict[int, str]] = {}
        self._deadlines: dict[str, float] = {}
        self._told_to_stop = False
        self._leaving = False
        self._ending = threading.Lock()
        self._stall_told = 0
        self._heartbeats: pathlib.Path | None = None
        self._sigterm = Sigterm(self._on_sigterm)

    def __enter__(self) -> "Processes":
        self._sigterm.__enter__()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        return self

    def connect(self, facts: Mapping[str, str]) -> None:
        """Brings the processes together and starts JAX's own runtime, before it has any device.

        Args:
          facts: what must be the same in all of them.

        Raises:
          TrainingError: if a process is missing or differs, or process 0 cannot be reached.
        """
        if self._place is None:
            return
        place, limit = self._place, self._config.start_secs
        self._hosts, links = meet(place, self._host, facts, limit)
        with self._changed:
            self._links = links
            self._heard = dict.fromkeys(links, time.monotonic())
            self._progress = dict.fromkeys(links, 0)
        for index, link in links.items():
            listen(link, self._acting_on(index), self._ended_of(index))
        alive.delay_aborts()
        # SIGTERM is this class's own concern.
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(
            place.coordinator,
            place.count,
            place.index,
            initialization_timeout=int(limit),
            # What is lost is noticed here, and sooner.
            heartbeat_timeout_seconds=int(10 * self._config.silence_secs),
            shutdown_timeout_seconds=int(limit),
        )

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        if self._links and error is not None and not isinstance(error, Preempted):
            self._fail(error)
        if error is not None and not self._ending.acquire(blocking=False):
            # Another thread is ending this process.
            time.sleep(2 * _LEAVING_SECS)
        with self._changed:
            self._leaving = True
        self._broadcast({"bye": True})
        if self._links and error is not None:
            alive.say(str(error))
            self._exit(PREEMPTED_EXIT_CODE)
        if self._links:
            jax.distributed.shutdown()
        self._sigterm.__exit__()

    def agree(self, name: str, value: str = "") -> None:
        """Waits until all processes are here, and ends them all if their values differ.

        A process that does not come within `start_secs` is named. `name` is used once in a run.
        """
        if self.count == 1:
            return
        if self.index == 0:
            self._arrive(0, name, value)
        else:
            self._links[0].send({"agree": name, "value": value})
        with self._changed:
            # Process 0 keeps the time and names who is missing.
            limit = self._config.start_secs + 2 * self._config.silence_secs
            if self._changed.wait_for(lambda: name in self._agreed, timeout=limit):
                return
        self._end(f"Process 0 ({self._hosts[0]}) did not answer at {name!r}.", 1)
        time.sleep(2 * _LEAVING_SECS)

    def write_heartbeats(self, directory: pathlib.Path) -> None:
        """From now on this process keeps a file there that tells when it was last alive."""
        directory.mkdir(parents=True, exist_ok=True)
        self._heartbeats = directory / f"process_{self.index}.json"

    def _me(self) -> str:
        return f"process {self.index} ({self._host})"

    # What other processes say.

    def _acting_on(self, index: int) -> Callable[[Message], None]:
        return lambda message: self._act(index, message)

    def _act(self, index: int, message: Message) -> None:
        with self._changed:
            self._heard[index] = time.monotonic()
            if "beat" in message:
                self._progress[index] = message["beat"]
            if "bye" in message:
                self._left.add(index)
        if "agree" in message:
            self._arrive(index, message["agree"], message["value"])
        elif "agreed" in message:
            with self._changed:
                self._agreed.add(message["agreed"])
                self._changed.notify_all()
        elif "sigterm" in message:
            self._stop_all(message["sigterm"])
        elif "held" in message:
            self._hold(index, message["held"])
        elif "stop" in message:
            self._stop(message["stop"])
        elif "stacks" in message:
            alive.print_stacks(message["stacks"], self._me())
        elif "end" in message:
            # Not in the reader's thread, which is to see the connection close.
            arguments = (message["end"], message["code"])
            threading.Thread(target=self._end, args=arguments, daemon=True).start()

    def _arrive(self, index: int, name: str, value: str) -> None:
        """In process 0: a process has come to the point of that name."""
        with self._changed:
            values = self._arrived.setdefault(name, {})
            self._deadlines.setdefault(name, time.monotonic() + self._config.start_secs)
            values[index] = value
            if len(values) < self.count:
                return
            del self._deadlines[name]
        for other, theirs in values.items():
            who = f"process {other} ({self._hosts[other]})"
            sentence = difference(self._hosts[0], {name: values[0]}, who, {name: theirs})
            if sentence is not None:
                self._end(sentence, 1)
        self._broadcast({"agreed": name})
        with self._changed:
            self._agreed.add(name)
            self._changed.notify_all()

    def _ended_of(self, index: int) -> Callable[[], None]:
        def ended() -> None:
            with self._changed:
                expected = index in self._left
                self._left.add(index)
                self._closed.add(index)
                self._changed.notify_all()
            if not expected:
                self._lost(index, "its connection closed")

        return ended

    def _lost(self, index: int, how: str) -> None:
        self._end(
            f"Process {index} ({self._hosts[index]}) is gone ({how}); the same command continues "
            f"after the last checkpoint.",
            1,
        )

    # SIGTERM.

    def _on_sigterm(self) -> None:
        who = self._me()
        if self._links and self.index > 0:
            self._links[0].send({"sigterm": who})
        elif self.count == 1 or self._links:
            self._stop_all(who)
        else:
            self._end("SIGTERM came before the run began.", PREEMPTED_EXIT_CODE)

    def _stop_all(self, who: str) -> None:
        with self._changed:
            if self._told_to_stop or self._leaving:
                return
            self._told_to_stop = True
        alive.say(f"SIGTERM came to {who}; stopping.")
        late = threading.Timer(self._config.preemption_secs, self._too_late)
        late.daemon = True
        late.start()
        held = self.points.hold()
        if self.index == 0:
            self._broadcast({"sigterm": who})
            self._hold(0, held)
        else:
            self._links[0].send({"held": held})

    def _hold(self, index: int, passed: int) -> None:
        """In process 0: a process holds after so many points."""
        with self._changed:
            self._held[index] = passed
            if len(self._held) < self.count:
                return
            stop = max(self._held.values())
        self._broadcast({"stop": stop})
        self._stop(stop)

    def _stop(self, points: int) -> None:
        self.points.stop_after(points)
        if points == 0:
            # The main thread may be compiling, which can take longer than there is time.
            self._end(
                "Stopped by SIGTERM before a step was made; the same command begins there again.",
                PREEMPTED_EXIT_CODE,
            )

    def _too_late(self) -> None:
        with self._changed:
            if self._leaving:
                return
        self._end(
            f"The state could not be saved within config.distributed.preemption_secs = "
            f"{self._config.preemption_secs:g} of SIGTERM; the same command continues after the "
            f"last checkpoint.",
            PREEMPTED_EXIT_CODE,
        )

    # Watching.

    def _watch(self) -> None:
        period = min(2.0, self._config.silence_secs / 8, self._config.stall_secs / 4)
        while True:
            here = self.points.now()
            self._broadcast({"beat": here.progress})
            if self._heartbeats is not None:
                alive.write_heartbeat(self._heartbeats, self.index, self._host, here.doing)
            now = time.monotonic()
            with self._changed:
                if self._leaving:
                    return
                silent = [
                    index
                    for index, heard in self._heard.items()
                    if index not in self._left and now - heard > self._config.silence_secs
                ]
                overdue = [name for name, deadline in self._deadlines.items() if now > deadline]
                slowest = min([here.progress, *self._progress.values()])
                slow = [index for index, theirs in self._progress.items() if theirs == slowest]
                absent = [
                    f"Process {index} ({self._hosts[index]})"
                    for index in range(self.count)
                    if overdue and index not in self._arrived[overdue[0]]
                ]
            if silent:
                self._lost(
                    silent[0], f"nothing was heard of it for {self._config.silence_secs:g} s"
                )
            if overdue:
                self._end(
                    f"{', '.join(absent)} did not come to {overdue[0]!r} within "
                    f"{self._config.start_secs:g} s of the first; see what its log ends with.",
                    1,
                )
            stalled = here.passed > self._stall_told and here.secs > self._config.stall_secs
            if self.index == 0 and stalled:
                self._stall_told = here.passed
                what = f"{here.doing} has taken {here.secs:.0f} s"
                self._tell_stall(what, slow, here.progress == slowest)
            time.sleep(period)

    def _tell_stall(self, what: str, slow: list[int], here: bool) -> None:
        """Asks the processes that all others wait for to print what they are doing."""
        for index in slow:
            self._links[index].send({"stacks": what})
        if here:
            alive.print_stacks(what, self._me())
        else:
            names = ", ".join(f"{index} ({self._hosts[index]})" for index in slow)
            alive.say(f"{what}, waiting for process {names}.")

    # The end.

    def _broadcast(self, message: Message) -> None:
        with self._changed:
            links = [link for index, link in self._links.items() if index not in self._left]
        for link in links:
            link.send(message)

    def _fail(self, error: BaseException) -> None:
        """Ends all processes for an exception in this one; returns if another thread was first."""
        if isinstance(error, UserError | TrainingError):
            self._end(str(error), 2 if isinstance(error, UserError) else 1)
        elif isinstance(error, KeyboardInterrupt):
            self._end("Interrupted; the same command continues after the last checkpoint.", 130)
        else:
            # Most likely this is the loss of another process, of which its connection tells.
            time.sleep(_LEAVING_SECS)
            if not self._ending.locked():
                traceback.print_exception(error)
            self._end(f"Process {self.index} failed: {type(error).__name__}.", 1)

    def _end(self, sentence: str, code: int) -> None:
        """Says why and ends all processes; does nothing if another thread is about to."""
        if self._ending.acquire(blocking=False):
            alive.say(sentence)
            self._broadcast({"end": sentence, "code": code})
            self._exit(code)

    def _exit(self, code: int) -> None:
        """Ends this process, whatever its threads are in, and process 0 as the last of all.

        JAX's own runtime lives in process 0, and would say much about its end in the others.
        """
        sys.stdout.flush()
        with self._changed:
            self._changed.wait_for(
                lambda: self.index > 0 or self._closed >= self._links.keys(),
                timeout=_LEAVING_SECS,
            )
        os._exit(code)
