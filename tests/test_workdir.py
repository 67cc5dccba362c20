"""A work directory belongs to one configuration."""

import dataclasses
import json
from pathlib import Path

import pytest

from pnet_jax.config import CheckpointConfig, Config, DataConfig, ModelConfig
from pnet_jax.errors import UserError
from pnet_jax.workdir import (
    CONFIG_FILE,
    claim,
    read_class_names,
    read_config,
    write_class_names,
)


def test_claiming_twice(tmp_path: Path) -> None:
    workdir = tmp_path / "runs" / "a"
    claim(workdir, Config())
    assert read_config(workdir) == Config().to_dict()
    written = (workdir / CONFIG_FILE).read_bytes()
    claim(workdir, Config())
    assert (workdir / CONFIG_FILE).read_bytes() == written
    assert [path.name for path in workdir.iterdir()] == [CONFIG_FILE]


def test_another_configuration_is_refused_with_the_differing_fields(tmp_path: Path) -> None:
    claim(tmp_path, Config())
    other = dataclasses.replace(
        Config(),
        seed=1,
        mesh="fsdp=8",
        model=ModelConfig(num_experts=2),
        data=DataConfig(data_dir="elsewhere"),
    )
    with pytest.raises(UserError) as caught:
        claim(tmp_path, other)
    first, *differences = str(caught.value).splitlines()
    assert first == (
        f"The work directory {tmp_path} belongs to a run with another configuration; take a new "
        f"--workdir, or the old values:"
    )
    # The mesh and the data's directory differ too, but may.
    assert differences == [
        "  config.model.num_experts: None there, 2 here",
        "  config.seed: 0 there, 1 here",
    ]
    assert read_config(tmp_path) == Config().to_dict()


def test_what_may_change_is_taken_over(tmp_path: Path) -> None:
    claim(tmp_path, Config())
    other = dataclasses.replace(
        Config(), data=DataConfig(max_corrupt_images=7), checkpoint=CheckpointConfig(keep_last=9)
    )
    claim(tmp_path, other)
    assert read_config(tmp_path) == other.to_dict()


def test_a_field_that_was_added_since_is_named(tmp_path: Path) -> None:
    old = Config().to_dict()
    del old["ema_decay"]
    del old["init_from"]  # None now, which is what its absence meant
    (tmp_path / CONFIG_FILE).write_text(json.dumps(old))
    with pytest.raises(UserError, match=r":\n  config\.ema_decay: None there, 0\.9999 here$"):
        claim(tmp_path, Config())


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    workdir = tmp_path / "file" / "run"
    with pytest.raises(UserError) as caught:
        claim(workdir, Config())
    assert str(caught.value) == (
        f"The work directory {workdir} cannot be written (Not a directory); choose another "
        f"--workdir."
    )


@pytest.mark.parametrize("content", [b"", b'{"seed": 0', b"[1, 2]", b"\xff\xfe"])
def test_a_corrupt_configuration(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CONFIG_FILE).write_bytes(content)
    sentence = (
        f"{tmp_path / CONFIG_FILE} cannot be read as a configuration; put back the file that the "
        f"run wrote, or choose another --workdir."
    )
    for use in (lambda: read_config(tmp_path), lambda: claim(tmp_path, Config())):
        with pytest.raises(UserError) as caught:
            use()
        assert str(caught.value) == sentence
    assert (tmp_path / CONFIG_FILE).read_bytes() == content


def test_not_a_work_directory(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_config(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is not the work directory of a run (it has no config.json); name the "
        f"--workdir that training was started with."
    )


def test_class_names(tmp_path: Path) -> None:
    write_class_names(tmp_path, ("n01440764", "émeu, bird"))
    assert read_class_names(tmp_path) == ["n01440764", "émeu, bird"]
    with pytest.raises(UserError, match=r"does not tell its classes .* --config\.head=fresh"):
        read_class_names(tmp_path / "elsewhere")
