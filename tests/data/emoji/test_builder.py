"""The demo set as built: readable, balanced, deterministic, resumable, and quick."""

import collections
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from pnet_jax.data import emoji
from pnet_jax.data.emoji import builder, sprites
from pnet_jax.errors import UserError

SMALL = {"num_train": 240, "num_validation": 60, "num_classes": 40, "processes": 1}


def contents(directory):
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return emoji.build(tmp_path_factory.mktemp("data"), **SMALL)


def test_reads_through_tfds(built):
    assert built.parts[-2:] == ("emoji", "1.0.0")
    read = tfds.builder_from_directory(built)
    names = builder.label_names(40)
    assert tuple(read.info.features["label"].names) == names["label"]
    assert tuple(read.info.features["coarse_label"].names) == names["coarse_label"]
    classes = sprites.load().classes
    for split, size in (("train", 240), ("validation", 60)):
        source = read.as_data_source(split)
        assert len(source) == size
        for record in source:
            assert record["image"].shape == (64, 64, 3)
            subgroup = names["coarse_label"][record["coarse_label"]]
            assert subgroup == classes[record["label"]].subgroup


def test_balanced_shuffled_and_families_apart(built):
    families = {d.set_name: d.family for d in sprites.load().drawings}
    seen = collections.defaultdict(set)
    for split in ("train", "validation"):
        source = tfds.builder_from_directory(built).as_data_source(
            split, decoders={"image": tfds.decode.SkipDecoding()}
        )
        records = list(source)
        labels = [int(record["label"]) for record in records]
        counts = np.bincount(labels, minlength=40)
        assert counts.max() - counts.min() <= 1
        assert labels != sorted(labels)
        assert np.mean(np.diff(labels) == 1) < 0.2
        file_names = [record["file_name"].decode() for record in records]
        assert len(set(file_names)) == len(records)
        for label, file_name in zip(labels, file_names, strict=True):
            set_name = file_name.split("_", 1)[1].rsplit("_", 1)[0]
            seen[label, split].add(families[set_name])
    for label in range(40):
        assert not seen[label, "train"] & seen[label, "validation"]
        assert len(seen[label, "train"]) >= 2


def test_a_picture_depends_on_seed_split_and_index_only():
    small = builder._settings(
        image_size=64, num_train=10, num_validation=10, num_classes=None, seed=3
    )
    large = builder._settings(
        image_size=64, num_train=9_000, num_validation=70, num_classes=None, seed=3
    )
    other = builder._settings(
        image_size=64, num_train=10, num_validation=10, num_classes=None, seed=4
    )
    (fourth,) = builder.examples(small, "train", [4])
    assert [fourth] == list(builder.examples(large, "train", [8_000, 4]))[1:]
    (reseeded,) = builder.examples(other, "train", [4])
    assert reseeded.labels == fourth.labels
    assert reseeded.image != fourth.image
    (held_out,) = builder.examples(small, "validation", [4])
    assert held_out.labels == fourth.labels
    assert held_out.image != fourth.image


def test_an_interrupted_build_ends_the_same(tmp_path, built, monkeypatch):
    monkeypatch.setattr(builder, "IMAGES_PER_SHARD", 50)
    directory = emoji.build(tmp_path, **SMALL)
    whole = contents(directory)
    assert len([name for name in whole if ".array_record-" in name]) == 5 + 2

    (directory / "dataset_info.json").unlink()
    (directory / "features.json").unlink()
    (directory / "emoji-train.array_record-00003-of-00005").unlink()
    (directory / ".emoji-train.array_record-00003-of-00005.1.tmp").write_bytes(b"half")
    kept = directory / "emoji-train.array_record-00002-of-00005"
    written = kept.stat().st_mtime_ns
    assert emoji.build(tmp_path, **SMALL) == directory
    assert contents(directory) == whole
    assert kept.stat().st_mtime_ns == written


def test_complete_set_returns_at_once_and_is_not_touched(built):
    before = {p: p.stat().st_mtime_ns for p in built.iterdir()}
    started = time.perf_counter()
    assert emoji.build(built.parents[1], **SMALL) == built
    assert time.perf_counter() - started < 0.5
    assert {p: p.stat().st_mtime_ns for p in built.iterdir()} == before


def test_other_settings_in_the_same_place(built):
    with pytest.raises(UserError, match=r"seed 0 \(not 1\); delete that directory or choose"):
        emoji.build(built.parents[1], **SMALL, seed=1)
    with pytest.raises(UserError, match=r"image_size 64 \(not 32\), num_train 240 \(not 241\)"):
        emoji.build(built.parents[1], **SMALL | {"num_train": 241}, image_size=32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 5_000}, "has 1577 classes; num_classes=5000"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"image_size": 8}, "image_size=8 is too small"),
        ({"num_validation": 0}, "num_validation=0 must both be at least 1"),
        ({"seed": -1}, "seed=-1 must not be negative"),
    ],
)
def test_impossible_settings(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        emoji.build(tmp_path, **settings)
    assert list(tmp_path.iterdir()) == []


def test_several_processes_write_the_same_bytes(tmp_path, built):
    directory = emoji.build(tmp_path, **SMALL | {"processes": 2})
    assert contents(directory) == contents(built)


def test_a_killed_build_leaves_no_process_and_can_go_on(tmp_path):
    """SIGKILL while two workers write: they go too, and a second run ends like a first."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from pnet_jax.data import emoji\n"
        "from pnet_jax.data.emoji import builder\n"
        "builder.IMAGES_PER_SHARD = 200\n"
        "if __name__ == '__main__':\n"
        "    emoji.build(sys.argv[1], num_train=1200, num_validation=100, processes=2)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, str(program)]
    with subprocess.Popen([*command, str(killed)], env=environment, stderr=subprocess.PIPE) as run:
        directory = killed / "emoji" / "1.0.0"
        deadline = time.monotonic() + 60
        while not list(directory.glob("emoji-train*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        run.kill()
        run.stderr.read()  # ends only when the workers, which write to it too, are gone
    assert not (directory / "dataset_info.json").exists()
    for place in (killed, whole):
        subprocess.run([*command, str(place)], env=environment, check=True, capture_output=True)
    assert contents(directory) == contents(whole / "emoji" / "1.0.0")


def test_a_program_without_a_main_guard_is_told(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from pnet_jax.data import emoji\n"
        "from pnet_jax.errors import UserError\n"
        "try:\n"
        f"    emoji.build({str(tmp_path)!r}, num_train=20, num_validation=20, processes=2)\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert "__main__" in done.stdout


def test_a_small_build_is_quick(tmp_path):
    started = time.perf_counter()
    emoji.build(tmp_path, **SMALL)
    assert time.perf_counter() - started < 3
