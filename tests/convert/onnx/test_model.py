"""The other networks as graphs: each computes what its Flax module computes, layer by layer."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from pnet_jax.convert import verify
from pnet_jax.convert.onnx import export
from pnet_jax.convert.onnx.model import Options
from pnet_jax.convert.onnx.session import described, open_session
from pnet_jax.models.efficientnet import EfficientNet, Row
from pnet_jax.models.resnet import ResNet
from pnet_jax.models.swin import Swin
from tests.convert.onnx.networks import source_of

pytestmark = pytest.mark.torch

EFFICIENTNET = {
    "stages": (
        Row("conv", 3, 1, 1, 16, 0, 1),
        Row("fused", 3, 2, 2, 24, 0, 2),
        Row("inverted", 5, 2, 2, 40, 0.25, 2),
        Row("separable", 3, 1, 1, 24, 0, 1),
    ),
    "width": 0.5,
}
SWIN = {"embed_dim": 16, "depths": (2, 1), "num_heads": 2}
DYNAMIC = {"num_experts": 3, "routing": "softmax_mlp"}
NETWORKS = {
    "resnet50": (ResNet(5, stages=(1, 2), width=0.15), 33),
    "efficientnetv2_b0": (EfficientNet(5, **EFFICIENTNET), 35),
    "efficientnetv2_b0_dynamic": (EfficientNet(5, **EFFICIENTNET, **DYNAMIC), 35),
    # 10 x 10 patches do not fill two windows a side, nor do 37 pixels fill 10 patches.
    "swin_300m": (Swin(5, **SWIN), 37),
    "swin_300m_dynamic": (Swin(5, **SWIN, **DYNAMIC), 37),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_and_logits_equal(tmp_path, name):
    network, size = NETWORKS[name]
    source = source_of(network, name, size)
    path = tmp_path / "x.onnx"
    done = export.write_onnx(source, path, Options())
    assert done.difference < verify.EXACT
    assert done.layers > 3
    session = open_session(path)
    images = np.random.default_rng(2).normal(size=(3, 3, size, size)).astype(np.float32)
    together = session.run(None, {"images": images})[0]
    alone = [session.run(None, {"images": image[None]})[0] for image in images]
    assert np.abs(together - np.concatenate(alone)).max() < 1e-4 * together.std()
    said = described(session)
    assert (said["model"], said["num_classes"], said["temperature"]) == (name, 5, 1.0)
    assert said["classes"][0] == "class 0"
