"""launch/local.sh: N processes of this machine as one run."""

import os
import re
import shlex
import signal
import sys
import time

import pytest

from tests.launch.conftest import HOSTILE

PROCESS = """
import os, signal, sys, time
rank = int(os.environ["JAX_PROCESS_ID"])
def told(number, frame):
    os.write(1, b"told %d\\n" % number)  # print may itself have been interrupted
    sys.exit(int(sys.argv[2]))
signal.signal(signal.SIGTERM, told)
signal.signal(signal.SIGINT, told)
open(f"up{rank}", "ab", 0).write(b".")
# The rest begins when all have begun as often as this one.
times = os.path.getsize(f"up{rank}")
for other in range(int(os.environ["JAX_NUM_PROCESSES"])):
    while not os.path.exists(f"up{other}") or os.path.getsize(f"up{other}") < times:
        time.sleep(0.01)
"""


@pytest.fixture
def program(launcher):
    """Writes a program; returns the command that runs it."""

    def write(body: str) -> list[str]:
        path = launcher.work / "program.py"
        path.write_text(PROCESS + body)
        return [sys.executable, "-IS", str(path)]

    return write


def test_dry_run_prints_the_command_of_each_process(launcher):
    done = launcher.run("local.sh", "--processes=2", "--dry-run", "--", "python", HOSTILE, "-x=1")
    lines = done.stdout.splitlines()
    assert [shlex.split(line) for line in lines] == [
        [
            "env",
            "JAX_COORDINATOR_ADDRESS=127.0.0.1:PORT",
            "JAX_NUM_PROCESSES=2",
            f"JAX_PROCESS_ID={rank}",
            "JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo",
            "python",
            HOSTILE,
            "-x=1",
        ]
        for rank in range(2)
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_processes_get_their_places_and_the_arguments_as_they_are(launcher):
    show = (
        "import os, sys; names = ['COORDINATOR_ADDRESS', 'NUM_PROCESSES', 'PROCESS_ID'];"
        "print(*[os.environ['JAX_' + name] for name in names], sys.argv[1:]);"
        "print('last', end='', file=sys.stderr)"
    )
    launcher.env["JAX_CPU_COLLECTIVES_IMPLEMENTATION"] = "mpi"
    arguments = [HOSTILE, "", "--", "a\tb"]
    done = launcher.run("local.sh", "--processes=3", "--", sys.executable, "-c", show, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    lines = sorted(done.stdout.splitlines())
    found = [re.fullmatch(r"\[(\d)\] 127.0.0.1:(\d+) 3 (\d) (.*)", line) for line in lines[::2]]
    assert [(m[1], m[3], m[4]) for m in found] == [
        (str(r),) * 2 + (str(arguments),) for r in range(3)
    ]
    assert len({m[2] for m in found}) == 1
    assert 20000 <= int(found[0][2]) < 32768
    assert lines[1::2] == [f"[{rank}] last" for rank in range(3)]


def test_when_one_fails_all_end_with_its_code(launcher, program):
    command = program("sys.exit(7) if rank == 1 else time.sleep(60)")
    begin = time.monotonic()
    done = launcher.run("local.sh", "--processes=3", "--", *command, "-", "42")
    assert done.returncode == 7
    assert "Process 1 ended with code 7; ending the others." in done.stderr
    assert time.monotonic() - begin < 20


def test_what_does_not_end_is_killed_after_the_grace(launcher, program):
    command = program(
        "if rank == 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        "if child: open('pids', 'w').write(f'{os.getpid()} {child}')\n"
        "time.sleep(60)"
    )
    done = launcher.run("local.sh", "--grace-secs=1", "--", *command, "-", "42")
    assert done.returncode == 128 + signal.SIGKILL
    assert "Not all processes ended within 1 s of SIGTERM; killing them." in done.stderr
    for pid in (launcher.work / "pids").read_text().split():
        with pytest.raises(ProcessLookupError):
            _until_gone(int(pid))


def _until_gone(pid: int) -> None:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        os.kill(pid, 0)
        time.sleep(0.05)


def test_a_preempted_run_is_run_again_as_often_as_allowed(launcher, program):
    command = program("sys.exit(42)")
    done = launcher.run("local.sh", "--retries=2", "--", *command, "-", "42")
    assert done.returncode == 42
    assert (launcher.work / "up0").read_text() == "..."
    assert (launcher.work / "up1").read_text() == "..."
    assert "running the same command again (2 of 2)" in done.stderr


def test_a_run_that_ends_after_a_preemption_succeeds(launcher, program):
    command = program("sys.exit(42 if os.path.getsize(f'up{rank}') == 1 else 0)")
    done = launcher.run("local.sh", "--retries=5", "--", *command, "-", "42")
    assert done.returncode == 0
    assert (launcher.work / "up0").read_text() == ".."


def test_other_codes_are_not_run_again(launcher, program):
    done = launcher.run("local.sh", "--retries=5", "--", *program("sys.exit(3)"), "-", "42")
    assert done.returncode == 3
    assert (launcher.work / "up0").read_text() == "."


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_goes_to_all_once_and_ends_the_run(launcher, program, how):
    # Its own process group keeps the terminal's Ctrl-C from reaching a process twice.
    command = program("print('all up', flush=True)\ntime.sleep(60)")
    code, said = launcher.interrupt(
        "local.sh", "--retries=5", "--", *command, "-", "42", when="all up", how=how
    )
    assert code == 42, said
    assert said.count(f"told {int(how)}") == 2
    assert "running the same command again" not in said
    assert (launcher.work / "up0").read_text() == "."


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--processes=0", "--", "true"], "--processes must be a whole number of at least 1"),
        (["--extra=x", "--", "true"], "There is no flag --extra"),
        (["--", "no such"], "The command 'no such' is not found."),
    ],
)
def test_misuse(launcher, arguments, sentence):
    done = launcher.run("local.sh", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr


@pytest.mark.multiprocess
def test_jax_processes_find_each_other(launcher):
    add = (
        "import os, jax;"
        "jax.distributed.initialize(num_processes=int(os.environ['JAX_NUM_PROCESSES']),"
        "  process_id=int(os.environ['JAX_PROCESS_ID']), initialization_timeout=60);"
        "from jax.experimental import multihost_utils as m;"
        "print(m.process_allgather(jax.numpy.int32(jax.process_index() + 1)).tolist())"
    )
    launcher.env |= {"JAX_PLATFORMS": "cpu"}
    done = launcher.run("local.sh", "--", sys.executable, "-c", add)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[0] [1, 2]" in done.stdout
    assert "[1] [1, 2]" in done.stdout
