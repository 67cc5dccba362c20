"""Short messages between the processes of a run, apart from JAX: process 0 in the middle of a star.

JAX's own runtime answers a process that is missing, other or gone by waiting for minutes or by
aborting with a page of C++. Here all of that ends in a sentence: the processes meet on a socket
before JAX is started, and keep the connections, whose end tells at once whose process is gone.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from pnet_jax.errors import TrainingError
from pnet_jax.parallel.place import Place

Message = dict[str, Any]
# Of one message: a name, a sentence, a few numbers.
_MAX_BYTES = 65_536
_RETRY_SECS = 0.2


class Link:
    """A connection to one process. Messages are lines of JSON."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._sending = threading.Lock()

    def send(self, message: Message) -> None:
        """Sends, or does nothing if the connection has ended: the reader will tell."""
        with contextlib.suppress(OSError), self._sending:
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout_secs: float | None = None) -> Message | None:
        """The next message; None if the connection has ended or what comes is no message."""
        try:
            self._connection.settimeout(timeout_secs)
            message = json.loads(self._lines.readline(_MAX_BYTES))
        except (OSError, ValueError):
            return None
        self._connection.settimeout(None)
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Ends the connection, for a reader that waits as well."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._lines.close()
        self._connection.close()


def meet(
    place: Place, host: str, facts: Mapping[str, str], timeout_secs: float
) -> tuple[list[str], dict[int, Link]]:
    """Brings all processes together.

    Args:
      place: of this process.
      host: the name that others should call its machine by.
      facts: what must be the same everywhere, such as versions.
      timeout_secs: until all must be there.

    Returns:
      Every process's host, and the links: to all others for process 0, to process 0 for the others.

    Raises:
      TrainingError: in every process that came, if one is missing or has other facts, or if process
        0 cannot be reached.
    """
    hello = {"index": place.index, "count": place.count, "host": host, "facts": dict(facts)}
    deadline = time.monotonic() + timeout_secs
    if place.index == 0:
        return _gather(place, hello, deadline, timeout_secs)
    return _join(place, hello, deadline, timeout_secs)


def _gather(
    place: Place, hello: Message, deadline: float, timeout_secs: float
) -> tuple[list[str], dict[int, Link]]:
    port = int(place.coordinator.rpartition(":")[2])
    hellos, links = {0: hello}, dict[int, Link]()
    sentence, kinds = None, {key: type(value) for key, value in hello.items()}
    with _listening(port, deadline) as server:
        while sentence is None and len(hellos) < place.count:
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                link = Link(server.accept()[0])
            except TimeoutError:
                sentence = _missing(hellos, place.count, timeout_secs)
                break
            # Whoever else knocks at the port says nothing that can be understood.
            theirs = link.receive(timeout_secs=5.0)
            if theirs is None or {k: type(v) for k, v in theirs.items()} != kinds:
                link.close()
                continue
            index = theirs["index"]
            # A process that was started again while the others still waited takes its old place.
            if index in links:
                links[index].close()
            links[index] = link
            hellos[index] = theirs
            sentence = _difference(hello, theirs)
    hosts = [hellos[index]["host"] for index in sorted(hellos)]
    for link in links.values():
        link.send({"hosts": hosts, "sentence": sentence})
    if sentence is not None:
        for link in links.values():
            link.close()
        raise TrainingError(sentence)
    return hosts, links


def _join(
    place: Place, hello: Message, deadline: float, timeout_secs: float
) -> tuple[list[str], dict[int, Link]]:
    host, _, port = place.coordinator.rpartition(":")
    while (left := deadline - time.monotonic()) > 0:
        try:
            link = Link(socket.create_connection((host.strip("[]"), int(port)), timeout=left))
        except OSError:
            time.sleep(min(_RETRY_SECS, left))
            continue
        link.send(hello)
        # Process 0 answers when all have come or its own time is over.
        verdict = link.receive(timeout_secs=left + 5.0)
        if verdict is None or "sentence" not in verdict:
            link.close()
            time.sleep(min(_RETRY_SECS, left))
            continue
        if verdict["sentence"] is not None:
            link.close()
            raise TrainingError(verdict["sentence"])
        return verdict["hosts"], {0: link}
    raise TrainingError(
        f"Process {place.index} ({hello['host']}) could not reach process 0 at "
        f"{place.coordinator} within {timeout_secs:g} s; see whether it runs there and whether the "
        f"port is open between the machines."
    )


def _listening(port: int, deadline: float) -> socket.socket:
    """A server on the port, which a process of an earlier start may still hold for a moment."""
    while True:
        try:
            return socket.create_server(("", port), backlog=1024)
        except OSError as error:
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"Process 0 cannot listen on port {port} ({error.strerror}); end what holds "
                    f"it, or name another port in JAX_COORDINATOR_ADDRESS."
                ) from error
            time.sleep(_RETRY_SECS)


def _missing(hellos: dict[int, Message], count: int, timeout_secs: float) -> str:
    absent = [str(index) for index in range(count) if index not in hellos]
    some = ", ".join(absent[:8]) + (", ..." if len(absent) > 8 else "")
    noun = "process" if len(absent) == 1 else "processes"
    return (
        f"After {timeout_secs:g} s {noun} {some} of {count} had not come; start all of them, or "
        f"tell all that there are {len(hellos)} (JAX_NUM_PROCESSES)."
    )


def _difference(ours: Message, theirs: Message) -> str | None:
    """What is wrong with a process that came, if anything."""
    who = f"process {theirs['index']} ({theirs['host']})"
    if theirs["count"] != ours["count"] or not 0 < theirs["index"] < ours["count"]:
        return (
            f"There are to be {ours['count']} processes, but one came that says it is {who} of "
            f"{theirs['count']}; set JAX_NUM_PROCESSES and JAX_PROCESS_ID anew."
        )
    return difference(ours["host"], ours["facts"], who, theirs["facts"])


def difference(
    host: str, facts: Mapping[str, str], who: str, theirs: Mapping[str, str]
) -> str | None:
    """A sentence on the first fact in which a process differs from process 0 on `host`, or None."""
    for name, value in facts.items():
        if theirs.get(name) != value:
            return (
                f"The processes differ in {name}: {value} in process 0 ({host}), "
                f"{theirs.get(name)} in {who}; make them the same everywhere."
            )
    return None


def listen(link: Link, act: Callable[[Message], None], ended: Callable[[], None]) -> None:
    """Starts a thread that passes each message to `act`, and calls `ended` after the last."""

    def read() -> None:
        while (message := link.receive()) is not None:
            act(message)
        link.close()
        ended()

    threading.Thread(target=read, name="channel", daemon=True).start()
