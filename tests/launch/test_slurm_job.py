"""launch/slurm_job.sh against an srun that ends as each test says."""

import pytest

from tests.launch.conftest import HOSTILE

SRUN = ["srun", "--kill-on-bad-exit=1"]
REQUEUE = ["scontrol", "requeue", "7"]


@pytest.fixture
def slurm(launcher):
    launcher.stub("srun", "scontrol")
    launcher.env["SLURM_JOB_ID"] = "7"
    return launcher


@pytest.mark.parametrize("code", [0, 1, 137])
def test_other_codes_than_42_end_the_job(slurm, code):
    slurm.answers({"srun": [code]})
    done = slurm.run("slurm_job.sh", "3", "python", HOSTILE, "")
    assert done.returncode == code
    assert slurm.calls() == [[*SRUN, "python", HOSTILE, ""]]


@pytest.mark.parametrize(("count", "again"), [(None, True), ("2", True), ("3", False)])
def test_code_42_requeues_the_job_as_often_as_allowed(slurm, count, again):
    slurm.answers({"srun": [42]})
    if count:
        slurm.env["SLURM_RESTART_COUNT"] = count
    done = slurm.run("slurm_job.sh", "3", "python")
    assert done.returncode == 42
    assert slurm.calls() == [[*SRUN, "python"], *[REQUEUE] * again]


def test_the_cores_of_a_process_are_handed_on(slurm):
    slurm.env["SLURM_CPUS_PER_TASK"] = "12"
    slurm.run("slurm_job.sh", "3", "python")
    assert slurm.calls() == [[*SRUN, "--cpus-per-task=12", "python"]]


def test_a_cancelled_job_is_not_requeued(slurm):
    path = slurm.bin / "srun"
    path.write_text(
        "#!/usr/bin/env bash\ntrap 'exit 42' TERM\necho up\nwhile :; do sleep 0.05; done"
    )
    code, _ = slurm.interrupt("slurm_job.sh", "3", "python", when="up", how=15)
    assert code == 42
    assert slurm.calls() == []
