"""launch/tpu_worker.sh: what runs on each worker, here in a copy of the shipped folder."""

import json
import shlex
import shutil
import sys
import time
from pathlib import Path

import pytest

from tests.launch.conftest import HOSTILE, Launcher

ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """Calls the script in a folder of its own."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self.folder = launcher.work / "pnet_jax"
        (self.folder / "launch").mkdir(parents=True)
        self.script = self.folder / "launch/tpu_worker.sh"
        shutil.copy(ROOT / "launch/tpu_worker.sh", self.script)

    def __call__(self, *arguments: str) -> tuple[int, str]:
        done = self.launcher.run(str(self.script), *arguments)
        assert done.stderr == ""
        return done.returncode, done.stdout


@pytest.fixture
def worker(launcher):
    launcher.link("setsid", "tail")
    worker = Worker(launcher)
    yield worker
    if (worker.folder / "run.pid").exists():
        worker.launcher.stub("python3")
        worker("install")  # ends what is running


def test_a_run_is_followed_to_its_end_and_gives_its_code(worker):
    body = (
        "import json, os, sys, time\n"
        "print(json.dumps([sys.argv[1:], os.getcwd(), os.environ['PATH']]), flush=True)\n"
        "time.sleep(0.5)\n"
        "sys.exit(42)"
    )
    assert worker("start", sys.executable, "-c", body, HOSTILE, "") == (0, "")
    assert worker("result") == (0, "running\n")
    code, log = worker("follow")
    arguments, folder, path = json.loads(log)
    assert (code, arguments, folder) == (0, [HOSTILE, ""], str(worker.folder))
    assert path.startswith(f"{worker.folder}/.venv/bin:")
    assert worker("result") == (0, "42\n")


def test_installing_first_ends_a_run_that_is_left_over(worker):
    body = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(42)))\n"
        "print('up', flush=True)\n"
        "time.sleep(60)"
    )
    assert worker("start", sys.executable, "-c", body)[0] == 0
    end = time.monotonic() + 10
    while "up" not in (worker.folder / "run.log").read_text():
        assert time.monotonic() < end
        time.sleep(0.02)
    worker.launcher.stub("python3")
    assert worker("install") == (0, "Ending the run that is still going ...\n")
    assert worker("result") == (0, "42\n")
    assert (worker.folder / "run.log").read_text() == "up\nsaved\n"
    pip, venv, install = worker.launcher.calls()
    assert shlex.join(pip) == "python3 -m pip install --quiet --user --upgrade uv"
    assert shlex.join(venv) == "python3 -m uv venv --quiet --allow-existing --python 3.11 .venv"
    assert install[-4:] == ["--constraint", "constraints.txt", "--editable", ".[tpu]"]
    (worker.folder / "run.pid").unlink()


def test_a_killed_run_has_no_result(worker):
    assert worker("start", "bash", "-c", "kill -KILL 0")[0] == 0
    assert worker("follow")[0] == 0
    assert worker("result") == (0, "none\n")


def test_a_failed_installation_is_told_from_a_lost_connection(worker):
    worker.launcher.stub("python3")
    worker.launcher.answers({"uv pip install": [1]})
    assert worker("install")[0] == 9
