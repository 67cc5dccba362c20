"""The demo's driver, on a small set and for a few steps: every stage runs, the table is theirs."""

import json

import pytest

from pnet_jax import demo, recipes
from pnet_jax.convert.files import read_weights
from pnet_jax.data import emoji
from pnet_jax.data.emoji.builder import label_names

CLASSES = 40


@pytest.mark.slow
def test_all_stages_and_again(tmp_path, monkeypatch, capsys):
    emoji.build(
        tmp_path / "data", num_train=400, num_validation=80, num_classes=CLASSES, processes=1
    )
    names = label_names(CLASSES)
    monkeypatch.setattr(recipes, "_DEMO_FINE", len(names["label"]))
    monkeypatch.setattr(recipes, "_DEMO_COARSE", len(names["coarse_label"]))
    assert demo.main(["--workdir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    rows = json.loads((tmp_path / "results.json").read_text())
    coarse = str(len(names["coarse_label"]))
    assert [row["classes"] for row in rows] == [str(CLASSES), coarse, coarse]
    for stage, row in zip(("pretrain", "finetune", "scratch"), rows, strict=True):
        summary = json.loads((tmp_path / stage / "summary.json").read_text())
        assert row["top-1"] == f"{summary['eval']['final']['eval/top1']:.2%}"
        assert row["top-1"] in printed
    weights = read_weights(tmp_path / "parameternet_300m.safetensors")
    assert weights["classifier.weight"].shape == (len(names["coarse_label"]), 1280)
    assert (tmp_path / "curves.png").stat().st_size > 10_000

    # Everything is finished, so a second call trains nothing and finds the same.
    assert demo.main(["--workdir", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "results.json").read_text()) == rows
