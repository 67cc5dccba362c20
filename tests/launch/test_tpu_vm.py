"""launch/tpu_vm.sh against a gcloud that answers as each test says."""

import shlex
import signal
import time
from pathlib import Path

import pytest

from tests.launch.conftest import HOSTILE

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = ["--name=pnet", "--zone=us-west4-a", "--type=v5litepod-16"]
TRAIN = ["python", "-m", "pnet_jax.main", f"--workdir=/mnt/{HOSTILE}"]
ABSENT = ("", "ERROR: (gcloud) NOT_FOUND: Requested entity was not found.\n", 1)
LOST = ("", "ERROR: (gcloud) [/usr/bin/ssh] exited with return code [255].\n", 1)
DELETE = "gcloud compute tpus queued-resources delete pnet --zone=us-west4-a --force --quiet"


@pytest.fixture
def tpu(launcher):
    """The launcher with a gcloud, a tar and a sleep that takes no time."""
    launcher.stub("gcloud", "tar", "sleep", "mkdir")
    return launcher


def steps(launcher) -> list[str]:
    """The calls by what they do, without the waiting."""
    short = []
    for call in launcher.calls():
        line = " ".join(call)
        names = ["create", "describe", "delete", "scp", "install", "start", "follow", "result"]
        (name,) = [n for n in names if f"resources {n}" in line or f"worker.sh {n}" in line] or [
            None
        ]
        if name:
            short.append(name)
    return short


RUN = ["scp", "install", "start", "follow", "result"]


def test_dry_run_prints_each_command(tpu):
    flags = ["--spot", "--yes", "--project=p", "--extra=--network=a b", "--extra=--reserved"]
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, *flags, "--dry-run", "--", *TRAIN)
    assert (done.returncode, done.stderr) == (0, "")
    assert tpu.calls() == []
    gcloud = ["gcloud", "compute", "tpus", "queued-resources"]
    where = ["pnet", "--zone=us-west4-a", "--project=p"]
    everywhere = ["--node=all", "--worker=all"]
    worker = "bash pnet_jax/launch/tpu_worker.sh"
    unpack = "mkdir -p pnet_jax && tar -xzf pnet_jax.tar.gz -C pnet_jax"
    build = f"{ROOT}/build"
    setup = sorted(path.name for path in ROOT.glob("setup.*"))
    files = ["pnet_jax", "configs", "launch", *setup, "pyproject.toml", "constraints.txt"]
    files += ["README.md", "LICENSE"]
    *lines, start, follow, result, delete = map(shlex.split, done.stdout.splitlines())
    assert lines == [
        [
            *[*gcloud, "create", *where, "--accelerator-type=v5litepod-16"],
            *["--runtime-version=v2-alpha-tpuv5-lite", "--node-id=pnet", "--spot"],
            *["--network=a b", "--reserved"],
        ],
        [*gcloud, "describe", *where, "--format=value(state.state)"],
        ["mkdir", "-p", build],
        [
            *["tar", "-czf", f"{build}/pnet.tar.gz", "--exclude=__pycache__", "--exclude=*.so"],
            *["-C", f"{ROOT}", *files],
        ],
        [*gcloud, "scp", f"{build}/pnet.tar.gz", "pnet:pnet_jax.tar.gz", *where[1:], *everywhere],
        [*gcloud, "ssh", *where, *everywhere, f"--command={unpack} && {worker} install"],
    ]
    assert start[:-1] == [*gcloud, "ssh", *where, *everywhere]
    # What the shell of the worker makes of it.
    assert shlex.split(start[-1].removeprefix("--command=")) == [*worker.split(), "start", *TRAIN]
    assert follow == [
        *gcloud,
        "ssh",
        *where,
        "--node=0",
        "--worker=0",
        f"--command={worker} follow",
    ]
    assert result == [
        *gcloud,
        "ssh",
        *where,
        "--node=0",
        "--worker=0",
        f"--command={worker} result",
    ]
    assert delete == [*gcloud, "delete", *where, "--force", "--quiet"]
    for name in files:
        assert (ROOT / name).exists()


def test_dry_run_without_yes_deletes_nothing_and_several_slices_are_nodes(tpu):
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, "--num-slices=2", "--dry-run", "--", "true")
    assert "--node-count=2 --node-prefix=pnet" in done.stdout
    assert "--node-id" not in done.stdout
    assert "delete" not in done.stdout


@pytest.mark.parametrize(
    ("type_", "runtime"),
    [
        ("v4-64", "tpu-ubuntu2204-base"),
        ("v5p-64", "v2-alpha-tpuv5"),
        ("v6e-64", "v2-alpha-tpuv6e"),
    ],
)
def test_runtime_version_follows_the_type(tpu, type_, runtime):
    arguments = [*ARGUMENTS[:2], f"--type={type_}", "--dry-run", "--", "true"]
    assert f" --runtime-version={runtime} " in tpu.run("tpu_vm.sh", *arguments).stdout


def test_a_run_is_created_awaited_run_and_deleted(tpu):
    tpu.answers(
        {
            "describe": [ABSENT, "WAITING_FOR_RESOURCES", LOST, "PROVISIONING", "ACTIVE"],
            "follow": ["the log of worker 0"],
            "result": ["0"],
        }
    )
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, "--yes", "--", *TRAIN)
    assert done.returncode == 0
    assert done.stdout == "the log of worker 0\n"
    assert steps(tpu) == ["describe", "create", *["describe"] * 4, *RUN, "delete"]
    assert "pnet is WAITING_FOR_RESOURCES; waiting" in done.stderr
    assert tpu.calls().count(["sleep", "2"]) == 3 * 30 / 2


def test_without_yes_nothing_is_deleted_and_the_command_is_named(tpu):
    tpu.answers({"describe": ["ACTIVE"], "result": ["0"]})
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, "--", *TRAIN)
    assert done.returncode == 0
    assert steps(tpu) == ["describe", *RUN]
    assert done.stderr.splitlines()[-1] == (
        "launch/tpu_vm.sh: The queued resource pnet is not deleted and may cost money; "
        f"delete it with: {DELETE}"
    )


def test_after_a_preemption_it_is_asked_for_again(tpu):
    tpu.answers(
        {
            "describe": ["ACTIVE", "SUSPENDING", "SUSPENDING", "SUSPENDED", ABSENT, "ACTIVE"],
            "result": ["42", "0"],
        }
    )
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, "--yes", "--retries=1", "--", *TRAIN)
    assert done.returncode == 0
    gone = ["describe", "describe", "describe", "delete", "describe", "create", "describe"]
    assert steps(tpu) == ["describe", *RUN, *gone, *RUN, "delete"]


def test_a_slice_that_stays_after_code_42_is_used_again(tpu):
    tpu.answers({"describe": ["ACTIVE"], "result": ["42", "42", "0"]})
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, "--retries=2", "--", *TRAIN)
    assert done.returncode == 0
    again = ["describe", "describe", *RUN]
    assert steps(tpu) == ["describe", *RUN, *again, *again]


def test_retries_are_counted(tpu):
    tpu.answers({"describe": ["ACTIVE"], "result": ["42"]})
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, "--retries=2", "--", *TRAIN)
    assert done.returncode == 42
    assert steps(tpu).count("start") == 3
    assert "all 2 retries are used" in done.stderr


def test_a_suspended_resource_is_kept_without_yes(tpu):
    tpu.answers({"describe": ["ACTIVE", "SUSPENDED"], "result": ["42"]})
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, "--", *TRAIN)
    assert done.returncode == 42
    assert "delete" not in steps(tpu)
    assert "has to be deleted before it can be asked for again, which needs --yes." in done.stderr
    assert done.stderr.splitlines()[-1].endswith(DELETE)


def test_workers_killed_by_a_preemption_without_an_exit_code(tpu):
    tpu.answers(
        {
            "describe": ["ACTIVE", "ACTIVE", "SUSPENDING", "SUSPENDED", ABSENT, "ACTIVE"],
            "result": [LOST, "none", "0"],
        }
    )
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, "--yes", "--", *TRAIN)
    assert done.returncode == 0
    gone = ["describe", "describe", "delete", "describe", "create", "describe"]
    lost = ["describe", "follow", "result"]
    assert steps(tpu) == ["describe", *RUN, *lost, *gone, *RUN, "delete"]


def test_a_slice_that_is_preempted_while_it_is_set_up(tpu):
    tpu.answers(
        {
            "describe": ["ACTIVE", "ACTIVE", "SUSPENDED", ABSENT, "ACTIVE"],
            "install": [1, 255, 0],
            "result": ["0"],
        }
    )
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, "--yes", "--", *TRAIN)
    assert done.returncode == 0
    setting_up = ["describe", "scp", "install"]
    gone = ["describe", "delete", "describe", "create", "describe"]
    assert steps(tpu) == [*setting_up, *setting_up, *gone, *RUN, "delete"]


def test_a_lost_connection_is_taken_up_again(tpu):
    tpu.answers({"describe": ["ACTIVE"], "follow": [LOST, 0], "result": ["running", "0"]})
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, "--", *TRAIN)
    assert done.returncode == 0
    assert steps(tpu) == ["describe", *RUN, "follow", "result"]
    assert "The connection was lost; the run goes on." in done.stderr


@pytest.mark.parametrize("yes", [[], ["--yes"]])
def test_other_codes_end_the_run(tpu, yes):
    tpu.answers({"describe": ["ACTIVE"], "result": ["3"]})
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, *yes, "--", *TRAIN)
    assert done.returncode == 3
    assert steps(tpu) == ["describe", *RUN, "describe", *["delete"] * len(yes)]


def test_a_failed_installation_ends_the_run(tpu):
    tpu.answers({"describe": ["ACTIVE"], "install": [9]})
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, "--", *TRAIN)
    assert done.returncode == 1
    assert steps(tpu) == ["describe", "scp", "install"]
    assert "Installing on the workers failed" in done.stderr


@pytest.mark.parametrize("answer", [LOST, "none"])
def test_a_run_that_may_be_going_on_is_not_deleted(tpu, answer):
    tpu.answers({"describe": ["ACTIVE"], "result": [answer]})
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, "--yes", "--", *TRAIN)
    assert done.returncode == 1
    assert steps(tpu) == ["describe", *RUN[:3], *["follow", "result", "describe"] * 20]
    assert "worker 0 does not answer or its run left no exit code." in done.stderr
    assert done.stderr.splitlines()[-1].endswith(DELETE)


def test_workers_that_are_never_reached_end_the_run(tpu):
    tpu.answers({"describe": ["ACTIVE"], "scp": [1]})
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, "--yes", "--", *TRAIN)
    assert done.returncode == 1
    assert steps(tpu) == ["describe", "scp"] * 20
    assert "The workers of pnet cannot be reached" in done.stderr
    assert done.stderr.splitlines()[-1].endswith(DELETE)


def test_an_archive_that_cannot_be_made_is_not_sent(tpu):
    tpu.answers({"describe": ["ACTIVE"], "tar -czf": [2]})
    assert tpu.run("tpu_vm.sh", *ARGUMENTS, "--", *TRAIN).returncode == 1
    assert set(steps(tpu)) == {"describe"}


def test_what_cannot_be_created_is_not_called_there(tpu):
    tpu.answers({"describe": [ABSENT], "create": [("", "ERROR: quota\n", 1)]})
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, "--yes", "--", *TRAIN)
    assert done.returncode == 1
    assert steps(tpu) == ["describe", "create", "describe"]
    assert "ERROR: quota" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("could not be created; gcloud says why above.")


def test_a_failed_request_is_described_and_kept(tpu):
    tpu.answers({"describe...--format": [ABSENT, "FAILED"], "describe": ["reason: stockout"]})
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, "--", *TRAIN)
    assert done.returncode == 1
    assert steps(tpu) == ["describe", "create", "describe", "describe"]
    assert "reason: stockout" in done.stderr
    assert done.stderr.splitlines()[-1].endswith(DELETE)


def test_what_another_deletes_is_not_created_again(tpu):
    tpu.answers({"describe": ["ACTIVE", "DELETING", ABSENT], "result": ["42"]})
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, "--yes", "--", *TRAIN)
    assert done.returncode == 1
    assert "create" not in steps(tpu)
    assert "delete" not in steps(tpu)
    assert done.stderr.splitlines()[-1].endswith("The queued resource pnet was deleted meanwhile.")


def test_a_gcloud_that_does_not_answer_ends_the_run(tpu):
    tpu.answers({"describe": [("", "ERROR: not logged in\n", 1)]})
    done = tpu.run("tpu_vm.sh", *ARGUMENTS, "--yes", "--", *TRAIN)
    assert done.returncode == 1
    assert steps(tpu) == ["describe"] * 20
    assert "ERROR: not logged in" in done.stderr


_GCLOUD = r"""#!/usr/bin/env bash
# A cloud of one worker, whose home is the folder `home`.
echo "$4" >>../steps
cd ../home
case $4 in
  describe) cat state 2>/dev/null || { echo NOT_FOUND >&2; exit 1; } ;;
  create) echo ACTIVE >state ;;
  delete) rm -r state pnet_jax ;;
  scp) cp "$5" pnet_jax.tar.gz ;;
  ssh) for flag; do [[ $flag != --command=* ]] || exec bash -c "${flag#--command=}"; done ;;
esac
"""


def test_the_whole_way_with_a_worker_that_really_runs(launcher):
    launcher.stub("python3", "sleep")
    launcher.link("cp", "gzip", "ls", "setsid", "tail", "tar")
    (launcher.folder / "home").mkdir()
    gcloud = launcher.bin / "gcloud"
    gcloud.write_text(_GCLOUD)
    gcloud.chmod(0o755)
    # Preempted at first: the state is that of a slice which went away after the run had saved.
    train = launcher.folder / "train.sh"
    train.write_text(
        '[[ ! -e ../saved ]] || { echo again "$1"; ls configs; exit 0; }\n'
        'echo SUSPENDED >../state; echo first "$1"; touch ../saved; exit 42\n'
    )
    done = launcher.run("tpu_vm.sh", *ARGUMENTS, "--yes", "--", "bash", str(train), HOSTILE)
    assert done.returncode == 0, done.stderr
    first, again, *configs = done.stdout.splitlines()
    assert (first, again) == (f"first {HOSTILE}", f"again {HOSTILE}")
    assert "pnet300m_22k.py" in configs
    run = ["scp", "ssh", "ssh", "ssh", "ssh"]
    assert (launcher.folder / "steps").read_text().split() == [
        *["describe", "create", "describe", *run, "describe"],
        *["describe", "delete", "describe", "create", "describe", *run, "delete"],
    ]
    (ROOT / "build/pnet.tar.gz").unlink()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("yes", [[], ["--yes"]])
def test_a_signal_deletes_nothing_and_what_is_left_is_named(tpu, yes, how):
    tpu.link("sleep")
    tpu.answers({"describe": [ABSENT, "WAITING_FOR_RESOURCES"]})
    when = "pnet is WAITING_FOR_RESOURCES"
    code, said = tpu.interrupt("tpu_vm.sh", *ARGUMENTS, *yes, "--", *TRAIN, when=when, how=how)
    assert code == 128 + how
    assert steps(tpu) == ["describe", "create", "describe"]
    assert said.splitlines()[-1].endswith(f"may cost money; delete it with: {DELETE}")


def test_a_signal_to_the_script_alone_is_heeded_while_it_waits(tpu):
    tpu.link("sleep")
    tpu.answers({"describe": ["WAITING_FOR_RESOURCES"]})
    begin = time.monotonic()
    code, _ = tpu.interrupt(
        *["tpu_vm.sh", *ARGUMENTS, "--", *TRAIN],
        when="pnet is WAITING_FOR_RESOURCES",
        how=signal.SIGTERM,
        alone=True,
    )
    assert code == 128 + signal.SIGTERM
    assert time.monotonic() - begin < 20  # it waits for 30 s at a time


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (ARGUMENTS[1:], "--name is needed; --help explains it."),
        (ARGUMENTS[:1] + ARGUMENTS[2:], "--zone is needed; --help explains it."),
        (ARGUMENTS[:2], "--type is needed; --help explains it."),
        ([*ARGUMENTS, f"--name={HOSTILE}"], "--name must be lower-case letters, digits"),
        ([*ARGUMENTS, f"--zone={HOSTILE}"], "--zone must be letters, digits"),
        ([*ARGUMENTS, "--project=-p"], "--project must be letters, digits"),
        ([*ARGUMENTS, "--type=v9-8"], "No runtime version is known for --type v9-8"),
        ([*ARGUMENTS, "--num-slices=0"], "--num-slices must be a whole number of at least 1"),
    ],
)
def test_misuse(tpu, arguments, sentence):
    done = tpu.run("tpu_vm.sh", *arguments, "--", "true")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert tpu.calls() == []


def test_gcloud_is_missed_before_anything_is_done(launcher):
    done = launcher.run("tpu_vm.sh", *ARGUMENTS, "--", "true")
    assert done.returncode == 2
    assert "The program gcloud is not installed or not on PATH" in done.stderr
