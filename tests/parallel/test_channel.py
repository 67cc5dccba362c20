"""Processes that meet: threads of one process here, over real sockets."""

import queue
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pnet_jax.errors import TrainingError
from pnet_jax.parallel.channel import Link, listen, meet
from pnet_jax.parallel.place import Place
from tests.processes import free_port


def all_meet(places: list[Place], facts: dict[int, dict[str, str]], timeout_secs: float = 5.0):
    """What each of the places gets: hosts and links, or the sentence it ends with."""

    def one(place: Place) -> Any:
        try:
            return meet(place, f"host{place.index}", facts.get(place.index, {}), timeout_secs)
        except TrainingError as error:
            return str(error)

    with ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(one, places))


def close(*met: Any) -> None:
    for _, links in met:
        for link in links.values():
            link.close()


def places(count: int, only: tuple[int, ...] | None = None) -> list[Place]:
    address = f"127.0.0.1:{free_port()}"
    return [Place(address, i, count) for i in (range(count) if only is None else only)]


def test_all_come_and_can_talk():
    first, second, third = all_meet(places(3), {})
    hosts = ["host0", "host1", "host2"]
    assert [first[0], second[0], third[0]] == [hosts] * 3
    assert first[1].keys() == {1, 2}
    assert second[1].keys() == third[1].keys() == {0}
    first[1][2].send({"for": "the third"})
    assert third[1][0].receive(timeout_secs=5) == {"for": "the third"}
    second[1][0].send({"from": "the second", "umlaut": "\u00fc\n"})
    assert first[1][1].receive(timeout_secs=5) == {"from": "the second", "umlaut": "\u00fc\n"}
    # The port is free for JAX's own runtime while the connections last.
    port = first[1][1]._connection.getsockname()[1]
    with socket.create_server(("", port)):
        third[1][0].send({"still": 1})
        assert first[1][2].receive(timeout_secs=5) == {"still": 1}
    close(first, second, third)


def test_strangers_are_ignored():
    """What is no process of a run, and what says it is one in other words."""
    some = places(2)
    port = int(some[0].coordinator.split(":")[1])

    def disturb() -> None:
        for content in (b"GET / HTTP/1.1\r\n\r\n", b'{"index": 1}\n', b'["index"]\n', b""):
            for _ in range(100):
                try:
                    connection = socket.create_connection(("127.0.0.1", port), timeout=1)
                    break
                except OSError:
                    time.sleep(0.02)
            with connection:
                connection.sendall(content)

    stranger = threading.Thread(target=disturb)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(meet, some[0], "host0", {}, 10.0)
        stranger.start()
        stranger.join()
        second = meet(some[1], "host1", {}, 10.0)
        assert first.result()[0] == second[0] == ["host0", "host1"]
    close(first.result(), second)


def test_who_does_not_come_is_named():
    sentence = (
        "After 0.5 s processes 1, 3 of 4 had not come; start all of them, or tell all that there "
        "are 2 (JAX_NUM_PROCESSES)."
    )
    assert all_meet(places(4, only=(0, 2)), {}, timeout_secs=0.5) == [sentence, sentence]


def test_process_0_does_not_come():
    (alone,) = places(2, only=(1,))
    began = time.monotonic()
    (sentence,) = all_meet([alone], {}, timeout_secs=0.5)
    assert time.monotonic() - began < 5
    assert sentence == (
        f"Process 1 (host1) could not reach process 0 at {alone.coordinator} within 0.5 s; see "
        f"whether it runs there and whether the port is open between the machines."
    )


def test_a_port_that_is_taken():
    some = places(2)
    with socket.create_server(("", int(some[0].coordinator.split(":")[1]))):
        (sentence,) = all_meet(some[:1], {}, timeout_secs=0.5)
    assert "Process 0 cannot listen on port " in sentence
    assert "JAX_COORDINATOR_ADDRESS" in sentence


def test_facts_that_differ():
    facts = {0: {"jax": "0.9", "digest": "a"}, 1: {"jax": "0.9", "digest": "b"}}
    first, second = all_meet(places(2), facts)
    assert first == second
    assert first == (
        "The processes differ in digest: a in process 0 (host0), b in process 1 (host1); make them "
        "the same everywhere."
    )


@pytest.mark.parametrize(("index", "count"), [(1, 3), (2, 2)])
def test_numbers_that_differ(index: int, count: int):
    address = f"127.0.0.1:{free_port()}"
    first, second = all_meet([Place(address, 0, 2), Place(address, index, count)], {})
    assert first == second
    assert f"that says it is process {index} (host{index}) of {count}; set" in first


def test_the_end_of_a_connection_is_heard():
    ours, theirs = (Link(connection) for connection in socket.socketpair())
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    listen(ours, heard.put, lambda: heard.put("ended"))
    theirs.send({"n": 1})
    theirs.send({"n": 2})
    theirs.close()
    assert [heard.get(timeout=5) for _ in range(3)] == [{"n": 1}, {"n": 2}, "ended"]
    # There is nobody to hear of it.
    ours.send({"n": 3})
    ours.send({"n": 4})
