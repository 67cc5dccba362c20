"""A pytest plugin with the tiny run of `tiny_run.py`.

Test files name it in `pytest_plugins` and so share its fixtures: the data set is rendered once, and
one run is trained once, for all of them.
"""

import pathlib

import pytest

from pnet_jax.data import emoji, writer
from pnet_jax.data.datasets import open_dataset
from pnet_jax.data.emoji.builder import label_names
from tests.tiny_run import (
    CONFIG,
    CORRUPT,
    NUM_CLASSES,
    NUM_EVAL,
    NUM_TRAIN,
    FinishedRun,
    Shell,
    shell_environment,
)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The directory of a demo set of `NUM_CLASSES` classes with a few corrupt images."""
    root = tmp_path_factory.mktemp("data")
    directory = emoji.build(
        root, num_train=NUM_TRAIN, num_validation=NUM_EVAL, num_classes=NUM_CLASSES, processes=1
    )
    names = label_names(NUM_CLASSES)
    data_sets = {
        key: open_dataset("emoji", str(root), label=key, build_demo=print) for key in names
    }
    for split, corrupt in CORRUPT.items():
        records = {key: data_set.split(split) for key, data_set in data_sets.items()}
        examples = []
        for i, record in enumerate(records["label"]):
            labels = {key: records[key][i].label for key in names}
            cut = record.image[:-200] if i in corrupt else record.image
            examples.append(writer.Example(cut, labels, record.file_name))
        path = writer.shard_path(directory, name="emoji", split=split, index=0, num_shards=1)
        writer.write_shard(path, examples, names)
    return root


@pytest.fixture(scope="session")
def shell(data_dir: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """The command line with the tiny configuration."""
    directory = tmp_path_factory.mktemp("shell")
    config = directory / "tiny.py"
    config.write_text(CONFIG.replace("DATA_DIR", repr(str(data_dir))))
    return Shell(config, shell_environment(directory))


@pytest.fixture(scope="session")
def finished_run(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """The tiny configuration, trained in one go."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    done = shell.run(shell.training(workdir))
    assert done.returncode == 0, done.stderr
    return FinishedRun(workdir, done.stdout, done.stderr)
