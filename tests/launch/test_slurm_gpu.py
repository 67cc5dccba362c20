"""launch/slurm_gpu.sh against an sbatch that answers as each test says."""

import shlex
from pathlib import Path

import pytest

from tests.launch.conftest import HOSTILE

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ["python", "-m", "pnet_jax.main", f"--workdir={HOSTILE}", "--", "-x", ""]
SUBMIT = [
    *["sbatch", "--parsable", "--job-name=pnet", "--output=pnet-%j.log", "--open-mode=append"],
    *["--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--requeue", "--signal=TERM@120"],
    *["--time=01:00:00", "--partition=a b", f"{ROOT}/launch/slurm_job.sh", "3", *TRAIN],
]
ARGUMENTS = ["--name=pnet", "--nodes", "2", "--gpus-per-node=4", "--time=01:00:00", "--retries=3"]
ARGUMENTS += ["--extra=--partition=a b"]


def test_dry_run_prints_the_command(launcher):
    launcher.stub("sbatch")
    done = launcher.run("slurm_gpu.sh", *ARGUMENTS, "--dry-run", "--", *TRAIN)
    assert (done.returncode, done.stderr) == (0, "")
    assert shlex.split(done.stdout) == SUBMIT
    assert launcher.calls() == []


def test_a_job_is_submitted_and_named(launcher):
    launcher.stub("sbatch")
    launcher.answers({"sbatch": ["1234;cluster"]})
    done = launcher.run("slurm_gpu.sh", *ARGUMENTS, "--", *TRAIN)
    assert (done.returncode, done.stdout) == (0, "1234\n")
    assert launcher.calls() == [SUBMIT]
    assert "its log: tail -F pnet-1234.log; to end it: scancel 1234" in done.stderr


def test_a_refused_job_ends_with_1(launcher):
    launcher.stub("sbatch")
    launcher.answers({"sbatch": [("", "sbatch: error: invalid partition\n", 1)]})
    done = launcher.run("slurm_gpu.sh", *ARGUMENTS, "--", *TRAIN)
    assert (done.returncode, done.stdout) == (1, "")
    assert "invalid partition" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--name is needed"),
        ([f"--name={HOSTILE}"], "--name must be letters, digits, dots"),
        (["--name=a%j"], "--name must be letters, digits, dots"),
        (["--name=-a"], "--name must be letters, digits, dots"),
        (["--name=a", "--nodes=0"], "--nodes must be a whole number of at least 1"),
    ],
)
def test_misuse(launcher, arguments, sentence):
    launcher.stub("sbatch")
    done = launcher.run("slurm_gpu.sh", *arguments, "--", "true")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert launcher.calls() == []
