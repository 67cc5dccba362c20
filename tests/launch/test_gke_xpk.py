"""launch/gke_xpk.sh against an xpk and a kubectl that answer as each test says."""

import shlex
import signal

import pytest

from tests.launch.conftest import HOSTILE

ARGUMENTS = ["--name=pnet", "--cluster=c", "--type=v5litepod-16", "--image=gcr.io/p/i:1"]
TRAIN = ["python", "-m", "pnet_jax.main", f"--workdir=/mnt/{HOSTILE}"]
DELETE = "xpk workload delete --workload=pnet --cluster=c --force"


@pytest.fixture
def gke(launcher):
    launcher.stub("xpk", "kubectl", "sleep")
    return launcher


def steps(launcher) -> list[str]:
    """The calls by what they do, without the waiting."""
    return [
        call[1] if call[1] == "logs" else call[2] for call in launcher.calls() if call[0] != "sleep"
    ]


def test_dry_run_prints_each_command(gke):
    flags = ["--num-slices=2", "--zone=z", "--project=p", "--retries=3", "--extra=--spot", "--yes"]
    done = gke.run("gke_xpk.sh", *ARGUMENTS, *flags, "--dry-run", "--", *TRAIN)
    assert (done.returncode, done.stderr) == (0, "")
    assert gke.calls() == []
    create, *lines = map(shlex.split, done.stdout.splitlines())
    where = ["--cluster=c", "--zone=z", "--project=p"]
    assert create[:-1] == [
        *["xpk", "workload", "create", "--workload=pnet", *where, "--tpu-type=v5litepod-16"],
        *["--num-slices=2", "--docker-image=gcr.io/p/i:1", "--max-restarts=3"],
        *["--termination-grace-period-seconds=120", "--spot"],
    ]
    # Kubernetes takes $$ for $ and would replace $(NAME); then the container's shell reads it.
    command = create[-1].removeprefix("--command=")
    assert "$" not in command.replace("$$", "")
    assert shlex.split(command.replace("$$", "$")) == ["exec", *TRAIN]
    labels = (
        "--selector=jobset.sigs.k8s.io/jobset-name=pnet,jobset.sigs.k8s.io/job-index=0,"
        "batch.kubernetes.io/job-completion-index=0"
    )
    space = "--namespace=default"
    state, phases = "{.status.terminalState}", "{.items[*].status.phase}"
    assert lines == [
        ["kubectl", "get", "jobset", "pnet", space, f"--output=jsonpath={state}"],
        ["kubectl", "get", "pods", space, labels, f"--output=jsonpath={phases}"],
        ["kubectl", "logs", "--follow", "--tail=-1", space, labels],
        ["xpk", "workload", "delete", "--workload=pnet", *where, "--force"],
    ]


def test_a_workload_is_created_followed_and_deleted(gke):
    gke.answers(
        {
            "get jobset": [("", "", 0), ("", "", 0), ("", "no route", 1), "Completed"],
            "get pods": [("", "", 0), "Pending", "Running"],
            "logs": ["the log of worker 0"],
        }
    )
    done = gke.run("gke_xpk.sh", *ARGUMENTS, "--yes", "--", *TRAIN)
    assert done.returncode == 0
    assert done.stdout == "the log of worker 0\n"
    assert steps(gke) == ["create", *["jobset", "pods"] * 3, "logs", "jobset", "delete"]
    assert "Worker 0 is Pending." in done.stderr


def test_the_log_is_followed_again_after_a_restart_by_the_cluster(gke):
    gke.answers(
        {
            "get jobset": [("", "", 0), ("", "", 0), ("", "", 0), "Completed"],
            "get pods": ["Running", "Pending", "Running"],
            "logs": ["first", "second"],
        }
    )
    done = gke.run("gke_xpk.sh", *ARGUMENTS, "--", *TRAIN)
    assert done.returncode == 0
    assert done.stdout == "first\nsecond\n"
    assert steps(gke).count("create") == 1
    assert "delete" not in steps(gke)
    assert done.stderr.splitlines()[-1].endswith(f"not deleted; delete it with: {DELETE}")


@pytest.mark.parametrize("yes", [[], ["--yes"]])
def test_a_failed_workload_ends_with_1(gke, yes):
    gke.answers({"get jobset": ["Failed"]})
    done = gke.run("gke_xpk.sh", *ARGUMENTS, *yes, "--", *TRAIN)
    assert done.returncode == 1
    assert steps(gke) == ["create", "jobset", *["delete"] * len(yes)]


def test_what_cannot_be_created_is_not_deleted(gke):
    gke.answers({"create": [("", "pnet already exists\n", 1)]})
    done = gke.run("gke_xpk.sh", *ARGUMENTS, "--yes", "--", *TRAIN)
    assert done.returncode == 1
    assert steps(gke) == ["create"]
    assert "pnet already exists" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("could not be created; xpk says why above.")


def test_a_cluster_that_does_not_answer_ends_the_watching(gke):
    gke.answers({"kubectl": [("", "no route to host\n", 1)]})
    done = gke.run("gke_xpk.sh", *ARGUMENTS, "--yes", "--", *TRAIN)
    assert done.returncode == 1
    assert "delete" not in steps(gke)
    assert steps(gke).count("jobset") == 15
    assert "kubectl does not tell the state of pnet: no route to host" in done.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("yes", [[], ["--yes"]])
def test_a_signal_deletes_nothing_and_what_is_left_is_named(gke, yes, how):
    gke.link("sleep")
    gke.answers({"get pods": ["Pending"]})
    when = "Worker 0 is Pending."
    code, said = gke.interrupt("gke_xpk.sh", *ARGUMENTS, *yes, "--", *TRAIN, when=when, how=how)
    assert code == 128 + how
    assert steps(gke) == ["create", "jobset", "pods"]
    assert said.splitlines()[-1].endswith(f"not deleted; delete it with: {DELETE}")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (ARGUMENTS[1:], "--name is needed"),
        ([*ARGUMENTS, "--name=" + 40 * "a"], "at most 39"),
        ([*ARGUMENTS, f"--cluster={HOSTILE}"], "--cluster must be letters, digits"),
        ([*ARGUMENTS, f"--image={HOSTILE}"], "--image must be letters, digits"),
        ([*ARGUMENTS, f"--zone={HOSTILE}"], "--zone must be letters, digits"),
        (ARGUMENTS[:3], "--image is needed"),
    ],
)
def test_misuse(gke, arguments, sentence):
    done = gke.run("gke_xpk.sh", *arguments, "--", "true")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert gke.calls() == []


def test_a_command_of_several_lines_is_refused(gke):
    done = gke.run("gke_xpk.sh", *ARGUMENTS, "--", "python", "-c", "a\nb")
    assert done.returncode == 2
    assert "The command must not contain a line break." in done.stderr
