"""The costs are XLA's of the project's own policies, at a size that takes seconds."""

import json

import pytest

from pnet_jax.bench.__main__ import main
from pnet_jax.bench.augmentation import POLICIES


@pytest.mark.aot
@pytest.mark.slow
def test_every_policy_has_its_costs(tmp_path, capsys):
    out = tmp_path / "costs.json"
    arguments = ["augment", "--topology=v5e:2x2", "--batch-size=8", "--image-size=16"]
    assert main([*arguments, f"--out={out}"]) == 0
    rows = json.loads(out.read_text())
    assert [next(iter(row.values())) for row in rows] == list(POLICIES)
    traffic = [float(row["GB accessed"]) for row in rows]
    assert traffic[-1] == max(traffic)
    assert "RandAugment" in capsys.readouterr().out


def test_refuses_in_a_sentence(capsys):
    assert main(["augment", "--topology=v5e"]) == 2
    assert "--topology=v5e cannot be read" in capsys.readouterr().err
