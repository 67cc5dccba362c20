"""Every mistake on the real command line ends with exit code 2 and one plain sentence."""

import dataclasses
import pathlib
import subprocess

import pytest

from tests.tiny_run import FinishedRun, Shell

pytest_plugins = ["tests.tiny_run_plugin"]

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def write_config(path: pathlib.Path, *lines: str) -> pathlib.Path:
    """A configuration file that changes the defaults by `lines`."""
    body = "".join(f"    {line}\n" for line in lines)
    path.write_text(
        "from pnet_jax.config import default_config\n\n"
        f"def get_config():\n    config = default_config()\n{body}    return config\n"
    )
    return path


def assert_told(done: subprocess.CompletedProcess[str], *parts: str, lines: int = 1) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("pnet_jax: ")
    assert done.stderr.count("\n") == lines, done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize(
    ("field", "parts"),
    [
        ("epohcs=3", ["no field config.epohcs; did you mean 'epochs'?"]),
        ("optimizer.learningrate=3", ["did you mean 'optimizer.learning_rate'?"]),
        ("epochs=three", ["--config.epochs=three: could not convert string to float: 'three'"]),
        ("global_batch_size=1.5", ["--config.global_batch_size=1.5: invalid literal for int()"]),
        ("epochs=0", ["config.epochs is 0.0; it must be above 0."]),
        ("model.name=parameternet_300", ["no model 'parameternet_300'", "'parameternet_300m'?"]),
        ("data.num_classes=21", ["emoji has 20 classes under 'label'", "set it to 20."]),
        ("data.eval_split=test", ["no split 'test'; it has train, validation"]),
        ("data.label=name", ["no label 'name'; it has coarse_label, label."]),
        ("mesh=data=2", ["config.mesh = 'data=2' does not fit 1 devices"]),
        ("data.data_dir=gs://bucket/sets", ["data_dir=gs://bucket/sets is an address"]),
        ("sharding=stem=split", ["config.sharding = 'stem=split' cannot be read at 'stem=split'"]),
        ("sharding=conv.*=fsdp", ["config.sharding says nothing of the parameter b"]),
        ("accumulate_steps=3", ["accumulate_steps = 3 does not divide config.global_batch_size"]),
        ("accumulate_steps=4", ["batch-norm group apart; set config.model.bn_groups = 1 to a mul"]),
        ("init_from=absent", ["config.init_from = 'absent' holds no checkpoint; name the work"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_field(shell: Shell, tmp_path: pathlib.Path, field, parts):
    assert_told(shell.run(shell.training(tmp_path / "run", field)), *parts)


def test_a_work_directory_that_is_no_path(shell: Shell):
    done = shell.run(shell.training("gs://bucket/run"))
    assert_told(done, "--workdir=gs://bucket/run is an address", "mount the bucket")


def test_a_mistake_leaves_the_work_directory_to_the_right_command(shell: Shell, tmp_path):
    workdir = tmp_path / "run"
    assert_told(shell.run(shell.training(workdir, "data.num_classes=21")))
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("def get_config(:\n", "{file} cannot be read: invalid syntax (wrong.py, line 1)"),
        ("import absent_module\n", "{file} fails in line 1: ModuleNotFoundError: No module named"),
        ("x = 1\n", "{file} cannot be read: "),
        ("def get_config():\n    return 3\n", "returned an object of type int, not a ConfigDict"),
        ("def get_config():\n    return 1 / 0\n", "{file} fails in line 2: ZeroDivisionError: "),
    ],
    ids=["syntax", "import", "no get_config", "no ConfigDict", "exception"],
)
def test_a_wrong_configuration_file(shell: Shell, tmp_path: pathlib.Path, source, sentence):
    path = tmp_path / "wrong.py"
    path.write_text(source)
    wrong = dataclasses.replace(shell, config=path)
    assert_told(wrong.run(wrong.training(tmp_path / "run")), sentence.format(file=path))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("config.optimizer.learningrate = 1.0", "no field config.optimizer.learningrate; did you"),
        ("config.epochs = 'ten'", "fails in line 5: TypeError: Could not override field 'epochs'"),
        ("config.epochs = epohcs", "fails in line 5: NameError: name 'epohcs' is not defined"),
    ],
)
def test_a_wrong_line_in_a_configuration_file(shell: Shell, tmp_path, line, sentence):
    wrong = dataclasses.replace(shell, config=write_config(tmp_path / "wrong.py", line))
    assert_told(wrong.run(wrong.training(tmp_path / "run")), sentence)


def test_no_configuration_file(shell: Shell, tmp_path: pathlib.Path):
    absent = dataclasses.replace(shell, config=pathlib.Path("absent.py"))
    done = absent.run(absent.training(tmp_path / "run"))
    assert_told(done, "There is no configuration file 'absent.py'")


@pytest.mark.parametrize("left_out", ["--config", "--workdir"])
def test_a_flag_left_out(shell: Shell, tmp_path: pathlib.Path, left_out):
    command = [part for part in shell.training(tmp_path) if not part.startswith(left_out)]
    assert_told(shell.run(command), "Pass both --config=FILE and --workdir=DIR")


@pytest.mark.parametrize("extra", ["stray", "--epochs=3"])
def test_an_argument_that_is_none(shell: Shell, tmp_path: pathlib.Path, extra):
    assert_told(shell.run([*shell.training(tmp_path), extra]), extra.strip("-=3"))


def test_real_data_that_is_absent(shell: Shell, tmp_path: pathlib.Path):
    """The sentence says how to build the set, and how to do without it."""
    real = dataclasses.replace(shell, config=CONFIGS / "pnet300m_22k.py")
    done = real.run(real.training(tmp_path / "run", f"data.data_dir={tmp_path}"))
    assert_told(done, f"no data set 'imagenet22k' in {tmp_path}", "docs/data.md", "':demo'")


def test_an_unknown_variant(shell: Shell, tmp_path: pathlib.Path):
    wrong = dataclasses.replace(shell, config=CONFIGS / "pnet300m_22k.py:dmo")
    assert_told(wrong.run(wrong.training(tmp_path / "run")), "no variant 'dmo'", "':demo'")


def test_a_batch_that_does_not_fit_the_devices(shell: Shell, tmp_path: pathlib.Path):
    # The evaluation's batch fits, since it would be refused first.
    command = shell.training(tmp_path / "run", "eval_batch_size=33")
    done = shell.run(command, XLA_FLAGS="--xla_force_host_platform_device_count=3")
    assert_told(done, "config.global_batch_size = 16 cannot be split over 3 devices; 15 or 18")


def test_a_work_directory_of_another_configuration(shell: Shell, finished_run: FinishedRun):
    fields = ("seed=3", "optimizer.weight_decay=0.1")
    done = shell.run(shell.training(finished_run.workdir, *fields))
    assert_told(
        done,
        f"{finished_run.workdir} belongs to a run with another configuration",
        "\n  config.optimizer.weight_decay: 0.05 there, 0.1 here",
        "\n  config.seed: 0 there, 3 here",
        lines=3,
    )
