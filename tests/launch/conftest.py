"""Stub programs that answer as a test says, and a runner of the launch scripts beside them."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = 'it\'s a "name" $(touch pwned) `touch pwned`; touch pwned & * -rf'
"""An argument that goes wrong wherever a shell sees it unquoted."""

# In bash, which starts ten times as fast as Python. `plan` sets the answers for "$line".
_STUB = """#!{bash}
folder={folder}
printf '%s\\0' "$(($# + 1))" "${{0##*/}}" "$@" >>"$folder/calls"
line="${{0##*/}} $*" key='' outs=() errs=() codes=()
. "$folder/plan"
[[ -n $key ]] || exit 0
printf . >>"$folder/count$key"
count=$(<"$folder/count$key")
n=$((${{#count}} > ${{#codes[@]}} ? ${{#codes[@]}} - 1 : ${{#count}} - 1))
printf %s "${{outs[n]}}"
printf %s "${{errs[n]}}" >&2
exit "${{codes[n]}}"
"""

_TOOLS = [
    *["basename", "bash", "cat", "dirname", "env", "grep", "mkdir", "mkfifo", "mktemp", "mv"],
    *["rm", "sed", "sleep", "touch"],
]


class Launcher:
    """Runs launch scripts in an empty folder, with stubs and a few tools of the system on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.bin = folder / "bin"
        self.work.mkdir()
        self.bin.mkdir()
        # Nothing else is on PATH: no test may reach a real gcloud, kubectl or sbatch.
        self.link(*_TOOLS)
        self.env = {"PATH": str(self.bin), "HOME": str(folder)}
        self.answers({})

    def link(self, *names: str) -> None:
        """Put tools of the system on PATH, in place of stubs if there are any."""
        for name in names:
            found = shutil.which(name)
            assert found, f"{name} is not installed"
            (self.bin / name).unlink(missing_ok=True)
            (self.bin / name).symlink_to(found)

    def stub(self, *names: str) -> None:
        """Put programs on PATH that note how they are called and succeed without a word."""
        for name in names:
            path = self.bin / name
            path.unlink(missing_ok=True)
            path.write_text(
                _STUB.format(bash=shutil.which("bash"), folder=shlex.quote(str(self.folder)))
            )
            path.chmod(0o755)

    def answers(self, plan: dict[str, list[int | str | tuple[str, str, int]]]) -> None:
        """What calls with all `...`-separated parts of a key answer, one after the other.

        An answer is an exit code, a line of output, or (output, errors, exit code). The first key
        that fits counts, and the last answer is repeated.
        """

        def full(answer: int | str | tuple[str, str, int]) -> tuple[str, str, int]:
            if isinstance(answer, int):
                return "", "", answer
            return (answer + "\n", "", 0) if isinstance(answer, str) else answer

        cases = []
        for index, (key, given) in enumerate(plan.items()):
            pattern = "*".join(["", *map(shlex.quote, key.split("...")), ""])
            outs, errs, codes = (
                " ".join(shlex.quote(str(value)) for value in values)
                for values in zip(*map(full, given), strict=True)
            )
            cases.append(f"{pattern}) key={index} outs=({outs}) errs=({errs}) codes=({codes}) ;;")
        (self.folder / "plan").write_text("\n".join(["case $line in", *cases, "esac", ""]))

    def calls(self) -> list[list[str]]:
        """The calls of the stubs so far, each as program and arguments."""
        path, found = self.folder / "calls", []
        words = iter(path.read_text().split("\0")[:-1] if path.exists() else [])
        for count in words:
            found.append([next(words) for _ in range(int(count))])
        return found

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `launch/SCRIPT` to its end."""
        done = subprocess.run(
            [str(ROOT / "launch" / script), *arguments],
            cwd=self.work,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not list(self.folder.rglob("pwned")), "a part of an argument was run as a command"
        return done

    def interrupt(
        self,
        script: str,
        *arguments: str,
        when: str,
        how: signal.Signals = signal.SIGINT,
        alone: bool = False,
    ) -> tuple[int, str]:
        """Signal the script and what it runs, as a terminal does, once it has said `when`.

        With `alone` the script gets the signal and what it runs does not. Returns its exit code and
        all that it said.
        """
        said = self.folder / "said"
        with said.open("w") as file:
            process = subprocess.Popen(
                # A background shell has SIGINT ignored and nohup SIGHUP; so would what they start.
                [sys.executable, "-c", _WITH_USUAL_SIGNALS, ROOT / "launch" / script, *arguments],
                cwd=self.work,
                env=self.env,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            end = time.monotonic() + 30
            while when not in said.read_text():
                assert process.poll() is None, said.read_text()
                assert time.monotonic() < end, said.read_text()
                time.sleep(0.02)
            (os.kill if alone else os.killpg)(process.pid, how)
            return process.wait(timeout=30), said.read_text()
        finally:
            # What a failure leaves behind would fail another test.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


_WITH_USUAL_SIGNALS = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    return Launcher(tmp_path)
