"""The command line of the converter."""

import subprocess
import sys

import pytest

from pnet_jax.build_data import main
from tests.data.release_tree import write_tree


def test_build_and_verify(tmp_path):
    names = write_tree(tmp_path / "tars", tars=2, images=3)
    (tmp_path / "classes.txt").write_text("\n".join(names))
    command = [sys.executable, "-m", "pnet_jax.build_data", "--name=toy", f"--data-dir={tmp_path}"]
    source = [f"--source={tmp_path / 'tars'}", f"--classes={tmp_path / 'classes.txt'}"]
    done = subprocess.run([*command, *source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "toy" / "1.0.0"
    assert done.stdout == f"{directory}\n"
    assert "26 seen = 10 accepted + 4 re-encoded + 12 rejected" in done.stderr
    assert "building toy: 100%" in done.stderr
    assert "images/s" in done.stderr
    checked = subprocess.run([*command, "--verify"], capture_output=True, text=True, check=False)
    assert checked.stdout == f"{directory}: 14 examples, all as written\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Pass both --source and --classes"),
        (["--source=nowhere", "--classes=1k"], "There is no source nowhere"),
        (["--source=.", "--classes=99k"], "--classes=99k is neither a release"),
        (["--source=.", "--classes=1k", "--shards=0"], "--shards must be at least 1"),
        (["--verify"], "holds no finished set"),
    ],
)
def test_mistakes_are_told_in_a_sentence(tmp_path, capsys, arguments, sentence):
    assert main(["--name=toy", f"--data-dir={tmp_path}", *arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith("pnet_jax: ")
    assert sentence in told
