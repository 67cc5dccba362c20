"""What the launchers have in common: flags, quoting, help."""

import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = ["local.sh", "tpu_vm.sh", "gke_xpk.sh", "slurm_gpu.sh"]
NEEDED = {
    "local.sh": [],
    "tpu_vm.sh": ["--name=pnet", "--zone=us-west4-a", "--type=v5litepod-16"],
    "gke_xpk.sh": ["--name=pnet", "--cluster=c", "--type=v5litepod-16", "--image=i"],
    "slurm_gpu.sh": ["--name=pnet"],
}


@pytest.mark.parametrize("script", LAUNCHERS)
def test_help_explains_each_flag_and_ends_with_0(launcher, script):
    done = launcher.run(script, "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert f"launch/{script} --" in done.stdout
    source = (ROOT / "launch" / script).read_text()
    values, switches = source.split('read_flags "')[1].split("\n")[0].split('"')[:3:2]
    for flag in [*values.split(), *switches.split(), "retries", "dry-run"]:
        assert f"--{flag}" in done.stdout, flag
    assert "set -euo" not in done.stdout


@pytest.mark.parametrize("script", LAUNCHERS)
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--nmae=x", "--", "true"], "There is no flag --nmae; --help lists them."),
        (["true"], "The argument true is no flag; flags come first, then -- and the command."),
        (["-x"], "The argument -x is no flag; flags come first, then -- and the command."),
        (["--retries"], "--retries needs a value."),
        (["--retries="], "--retries needs a value."),
        (["--retries", "--", "true"], "write --retries=VALUE if it starts with a dash."),
        (["--retries=2; true", "--", "true"], "a whole number of at least 0, not '2; true'."),
        (["--retries=-1", "--", "true"], "a whole number of at least 0, not -1."),
        (["--retries=08", "--", "true"], "a whole number of at least 0, not 08."),
        (["--dry-run=1", "--", "true"], "--dry-run takes no value."),
        (["--a b=c", "--", "true"], "The argument '--a b=c' is no flag"),
        ([], "Give the command to run after --"),
        (["--"], "Give the command to run after --"),
        (["--", "--config=x"], "--config=x is no command."),
    ],
)
def test_misuse_ends_in_one_sentence_with_2(launcher, script, arguments, sentence):
    done = launcher.run(script, *NEEDED[script], *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert sentence in done.stderr
    assert done.stderr.startswith(f"launch/{script}: ")
    assert done.stderr.count("\n") == 1
    assert launcher.calls() == []


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_quoted_words_are_read_back_as_they_are(shell):
    words = ["plain", "--flag=a/b:c,d@e%f+g", "", "'", "''", '"', "\\", "\\'", "a b", "$(x)", "`x`"]
    words += [
        "*",
        "~",
        "#",
        "!",
        "&",
        "a\nb",
        "-",
        "--x=a b",
        "é",
        "A=b",
        "x;y",
        "\t",
        "{a,b}",
        "$'a'",
    ]
    source = f'. {shlex.quote(str(ROOT / "launch/commands.sh"))}; quote "$@"'
    quoted = subprocess.check_output(["bash", "-c", source, "x", *words], text=True)
    assert shlex.split(quoted) == words
    back = subprocess.check_output([shell, "-c", f"printf '%s\\0' {quoted}"], text=True)
    assert back.split("\0")[:-1] == words
