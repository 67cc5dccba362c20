"""Training runs of several processes on this machine, small enough for tests.

The network is one of three stages: compiling takes most of a run, and every number of processes is
a program of its own.
"""

import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from pnet_jax.report.jsonl import read_records
from tests.tiny_run import CONFIG, Shell

STEPS = 30

_NETWORK = """
import os
import time

from pnet_jax import models
from pnet_jax.data import pipeline
from pnet_jax.models.ghostnet import STAGES_300M, GhostNet

models._MODELS["short"] = (GhostNet, {"stages": STAGES_300M[:3], "width": 0.3})

if os.environ.get("SLOW_PROCESS") == os.environ.get("JAX_PROCESS_ID", "none"):
    decode_part = pipeline.decode_part

    def slow_decode(image, choose):
        time.sleep(0.8)
        return decode_part(image, choose)

    pipeline.decode_part = slow_decode
"""
_FIELDS = {
    'config.model.name = "ghostnet_300m"': 'config.model.name = "short"',
    "config.model.width = 0.15": "config.model.width = 0.3",
    # 200 images in batches of 16.
    "config.epochs = 2.0": "config.epochs = 2.4",
    # An epsilon this large keeps rounding from deciding the sign of a step.
    "config.ema_decay = 0.9": "config.ema_decay = 0.9\n    config.optimizer.epsilon = 1e-3",
    # Machines that run tests have other things to do.
    "config.log_every_steps = 2": "config.log_every_steps = 2\n"
    "    config.distributed.preemption_secs = 120.0\n"
    "    config.distributed.start_secs = 90.0",
}


def short_config(data_dir: pathlib.Path) -> str:
    """The configuration file."""
    text = CONFIG.replace("DATA_DIR", repr(str(data_dir)))
    for old, new in _FIELDS.items():
        assert old in text
        text = text.replace(old, new)
    return _NETWORK + text


@dataclasses.dataclass(frozen=True)
class Rank:
    """One process of a run, and what it says."""

    process: subprocess.Popen[bytes]
    log: pathlib.Path

    def said(self) -> str:
        return self.log.read_text()

    def end(self, timeout_secs: float = 300.0) -> int:
        """Waits for the exit code."""
        try:
            return self.process.wait(timeout_secs)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on after {timeout_secs} s:\n{self.said()}") from None


@dataclasses.dataclass(frozen=True)
class Launcher:
    """Starts runs of several processes; ends what tests leave behind."""

    shell: Shell
    logs: pathlib.Path
    started: list[Rank] = dataclasses.field(default_factory=list)

    def start(
        self,
        workdir: pathlib.Path,
        *fields: str,
        count: int,
        only: tuple[int, ...] | None = None,
        fields_of: dict[int, tuple[str, ...]] | None = None,
        **environment: str,
    ) -> list[Rank]:
        """The processes (or `only` some of them) of one run, each with the fields given."""
        commands = {
            index: self.shell.training(workdir, *fields, *(fields_of or {}).get(index, ()))
            for index in (range(count) if only is None else only)
        }
        return self._start(commands, count, environment)

    def start_evaluation(self, workdir: pathlib.Path, *arguments: str, count: int) -> list[Rank]:
        """The processes that evaluate a run."""
        known = f"exec(open({str(self.shell.config)!r}).read())"
        command = [
            *(sys.executable, "-c"),
            f"{known}; import sys; from pnet_jax.evaluate import main; sys.exit(main())",
            *(f"--workdir={workdir}", *arguments),
        ]
        return self._start(dict.fromkeys(range(count), command), count, {})

    def _start(
        self, commands: dict[int, list[str]], count: int, environment: dict[str, str]
    ) -> list[Rank]:
        address, ranks = f"127.0.0.1:{free_port()}", []
        for index, command in commands.items():
            place = {
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": str(count),
                "JAX_PROCESS_ID": str(index),
            }
            variables = self.shell.environment | environment | (place if count > 1 else {})
            log = self.logs / f"{len(self.started)}.log"
            with log.open("w") as file:
                process = subprocess.Popen(command, env=variables, stdout=file, stderr=file)
            ranks.append(Rank(process, log))
            self.started.append(ranks[-1])
        return ranks

    def finish(self, workdir: pathlib.Path, *fields: str, count: int) -> list[str]:
        """Runs to the end, which must be a good one; what each process said."""
        ranks = self.start(workdir, *fields, count=count)
        for rank in ranks:
            assert rank.end() == 0, rank.said()
        return [rank.said() for rank in ranks]

    def kill_all(self) -> None:
        for rank in self.started:
            if rank.process.poll() is None:
                rank.process.send_signal(signal.SIGKILL)
                rank.process.wait()


def free_port() -> int:
    """A port that nobody listens on; one of those that are not given to outgoing connections."""
    for port in np.random.default_rng(os.getpid() + time.monotonic_ns()).integers(15000, 30000, 50):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", int(port)))
            except OSError:
                continue
            return int(port)
    raise AssertionError("no port is free")


def wait_until(holds: Callable[[], bool], ranks: list[Rank], timeout_secs: float = 200.0) -> None:
    """Waits while all processes live."""
    deadline = time.monotonic() + timeout_secs
    while not holds():
        for rank in ranks:
            assert rank.process.poll() is None, rank.said()
        assert time.monotonic() < deadline, [rank.said() for rank in ranks]
        time.sleep(0.005)


def has_record(workdir: pathlib.Path, kind: str, step: int) -> bool:
    path = workdir / "metrics.jsonl"
    return path.exists() and f'"kind": "{kind}", "step": {step},'.encode() in path.read_bytes()


def metrics(workdir: pathlib.Path) -> dict[str, float]:
    """All numbers of a run's records by a name of their own."""
    return {
        f"{record.kind} {record.step} {name}": value
        for record in read_records(workdir / "metrics.jsonl")
        for name, value in record.scalars.items()
    }


def assert_same_metrics(workdir: pathlib.Path, reference: pathlib.Path, rtol: float) -> None:
    ours, theirs = metrics(workdir), metrics(reference)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=rtol, atol=1e-7, err_msg=name)
