"""A hub folder is what its own files say, and the twin in it is the Flax network."""

import importlib.util
import json
import sys

import jax
import numpy as np
import pytest

from pnet_jax.augment.normalize import MEAN, STD
from pnet_jax.checkpoint.manager import Checkpoints
from pnet_jax.config import CheckpointConfig
from pnet_jax.convert import hub
from pnet_jax.convert.__main__ import main
from pnet_jax.convert.files import read_weights
from pnet_jax.convert.record import read_records, sha256
from pnet_jax.convert.source import open_source
from pnet_jax.convert.verify import normalized, sample_images
from pnet_jax.models import create_model, init_variables
from tests.parity.timm_alone import import_timm

FIELDS = {"width": 0.1, "num_experts": 2, "routing": "softmax_mlp"}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    model = create_model("parameternet_300m", num_classes=3, **FIELDS)
    variables = init_variables(model, jax.random.key(0))
    variables["params"] = jax.tree.map(
        # Residual branches start at zero; so every layer takes part.
        lambda leaf: np.full_like(leaf, 0.3) if leaf.ndim == 1 and not leaf.any() else leaf,
        jax.device_get(variables["params"]),
    )
    config = {"model": {"name": "parameternet_300m", **FIELDS}, "data": {"image_size": 64}}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "classes.json").write_text(json.dumps(["one", "two", "three"]))
    with Checkpoints(directory, CheckpointConfig()) as checkpoints:
        checkpoints.save(4, variables | {"ema": variables}, None)
    return directory


@pytest.mark.torch
def test_folder_opens_by_its_own_files(workdir, tmp_path, capsys):
    import torch

    out = tmp_path / "hub"
    assert main(["to-hub", "--workdir", str(workdir), "--out", str(out)]) == 0
    assert "step 4; logits within" in capsys.readouterr().out
    files = {path.name for path in out.iterdir()}
    assert files == {hub.WEIGHTS, hub.CONFIG, hub.CARD, hub.TWIN, "conversion.json"}
    config = json.loads((out / hub.CONFIG).read_text())
    prepared = config["pretrained_cfg"]
    np.testing.assert_allclose(prepared["mean"], np.array(MEAN) / 255, rtol=1e-6)
    np.testing.assert_allclose(prepared["std"], np.array(STD) / 255, rtol=1e-6)
    assert (prepared["input_size"], prepared["crop_pct"]) == ([3, 64, 64], 0.875)
    assert config["label_names"] == ["one", "two", "three"]
    said = read_records(out)[hub.WEIGHTS]
    assert said["sha256"] == sha256(out / hub.WEIGHTS)
    assert said["verified"]["logits_difference_in_std"] < 1e-4
    # 76 routers of the network, its 16 blocks, and the logits.
    assert said["verified"]["layers"] == 93
    spec = importlib.util.spec_from_file_location("their_twin", out / hub.TWIN)
    twin = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(twin)
    network = twin.create_model(config["architecture"], num_classes=3, **config["model_args"])
    tensors = {key: torch.tensor(x) for key, x in read_weights(out / hub.WEIGHTS).items()}
    network.load_state_dict(tensors, strict=True)
    assert "`torch_model.register_with(timm)`" in (out / hub.CARD).read_text()


@pytest.mark.slow
@pytest.mark.torch
def test_timm_opens_the_folder(workdir, tmp_path, monkeypatch):
    timm = import_timm()
    import torch

    out = tmp_path / "hub"
    hub.export_hub(workdir, out)
    spec = importlib.util.spec_from_file_location("torch_model", out / hub.TWIN)
    twin = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "torch_model", twin)  # where timm looks
    spec.loader.exec_module(twin)
    twin.register_with(timm)
    network = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    source = open_source(workdir, step=None, weights="ema")
    images = normalized(sample_images(64), source.preprocessing)
    expected = np.asarray(source.network.apply(source.variables, images))
    with torch.inference_mode():
        logits = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    assert logits.shape == (3, 3)
    assert np.abs(logits - expected).max() < 1e-4 * expected.std()
    prepared = timm.data.resolve_model_data_config(network)
    assert (list(prepared["input_size"]), prepared["crop_pct"]) == ([3, 64, 64], 0.875)
    np.testing.assert_allclose(prepared["mean"], np.array(MEAN) / 255, rtol=1e-6)


def test_other_networks_are_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"model": {"name": "swin_300m"}}))
    assert main(["to-hub", "--workdir", str(tmp_path), "--out", str(tmp_path / "hub")]) == 1
    assert "has no checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "hub").exists()
