"""Against timm's networks: small ones stored in tests/parity, and the full sizes where timm is.

`tests/parity/make_timm_references.py` wrote the files and says what is in them.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from pnet_jax.convert import from_torch, to_torch
from pnet_jax.models import create_model
from tests.parity.timm_alone import import_timm

FILES = pathlib.Path(__file__).parent / "parity"


def images_of(shape):
    """As in `make_timm_references.py`, `[N, H, W, 3]`."""
    images = 2 * np.sin(1e-3 * np.arange(np.prod(shape)) ** 2)
    return jnp.float32(images.reshape(shape).transpose(0, 2, 3, 1))


def part(tensors, prefix):
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def assert_close(actual, expected, tolerance=1e-4):
    """Equal to `tolerance` of the reference's largest entry."""
    error = np.abs(np.asarray(actual) - expected).max()
    assert error <= tolerance * np.abs(expected).max(), (error, np.abs(expected).max())


class Reference:
    def __init__(self, name, file, **overrides):
        tensors = load_file(FILES / file)
        self.name = name
        self.images = images_of(tensors["shape"])
        self.out = part(tensors, "out/")
        self.weights = {
            key: tensor if tensor.dtype == np.int64 else np.float32(tensor)
            for key, tensor in part(tensors, "weights/").items()
        }
        self.variables = from_torch(name, self.weights, **overrides)
        self.model = create_model(name, num_classes=10, **overrides)


@pytest.fixture(scope="module")
def swin():
    return Reference("swin_tiny", "swin_tiny_w0625_timm.safetensors", width=1 / 16)


@pytest.fixture(scope="module")
def ghost():
    return Reference("ghostnet_100", "ghostnet_100_w010_timm.safetensors", width=0.1)


def test_swin_logits_and_gradients(swin):
    def loss(params):
        logits = swin.model.apply(swin.variables | {"params": params}, swin.images)
        labels = jnp.arange(len(logits))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

    differentiate = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, logits), gradients = differentiate(swin.variables["params"])
    assert_close(logits, swin.out["logits"])
    assert_close(value, swin.out["loss"])
    gradients = to_torch(swin.name, {"params": gradients})
    listed = part(swin.out, "grad/")
    assert len(listed) == 91
    for key, expected in listed.items():
        assert_close(gradients[key], expected)


def test_ghostnet_logits(ghost):
    assert_close(jax.jit(ghost.model.apply)(ghost.variables, ghost.images), ghost.out["logits"])


@pytest.mark.parametrize("reference", ["swin", "ghost"])
def test_round_trip_is_exact(request, reference):
    reference = request.getfixturevalue(reference)
    back = to_torch(reference.name, reference.variables)
    assert back.keys() == reference.weights.keys()
    for key, tensor in reference.weights.items():
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[key], tensor)


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("swin_tiny", "swin_tiny_patch4_window7_224"),
        ("swin_small", "swin_small_patch4_window7_224"),
        ("swin_base", "swin_base_patch4_window7_224"),
        ("ghostnet_100", "ghostnet_100"),
        ("ghostnet_130", "ghostnet_130"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_full_size_logits(name, theirs):
    timm = import_timm()
    import torch

    torch.manual_seed(0)
    network = timm.create_model(theirs).eval()
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            # Norms and biases, which start where they have no effect, get one.
            if tensor.dim() == 1:
                tensor.add_(torch.rand_like(tensor) * 0.2)
            if "bias_table" in key:
                tensor.mul_(50)
    weights = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    images = images_of((1, 3, 224, 224))
    with torch.no_grad():
        expected = network(torch.from_numpy(np.array(images.transpose(0, 3, 1, 2)))).numpy()
    logits = jax.jit(create_model(name).apply)(from_torch(name, weights), images)
    assert_close(logits, expected)
