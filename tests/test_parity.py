"""Against the published PyTorch code of ParameterNet and against timm, on small networks.

The files in tests/parity hold a network's weights, an input, and what PyTorch computed from them:
evaluation and training logits, loss, some gradients and some running statistics after one forward
pass in training. Those of timm are written by make_references.py there.
"""

import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import traverse_util
from safetensors.numpy import load_file

from pnet_jax.convert import from_torch, to_torch
from pnet_jax.models import create_model
from pnet_jax.models.layers import BatchNorm

FILES = pathlib.Path(__file__).parent / "parity"


class Case(NamedTuple):
    """A network with 10 classes, and how many gradients and statistics its file lists."""

    name: str
    overrides: dict[str, Any]
    gradients: int
    statistics: int
    gradient_tolerance: float = 1e-4


_PUBLISHED = {"width": 0.15, "routing": "sigmoid_linear", "drop_rate": 0.0}
_EFFICIENTNET = {"width": 0.15, "depth": 0.6, "drop_rate": 0.0}
CASES = {
    "parameternet_300m_w015_official": Case("parameternet_300m", _PUBLISHED, 51, 24),
    "parameternet_600m_w015_official": Case("parameternet_600m", _PUBLISHED, 51, 24),
    # Batch norm over the last stage's 16 pixels leaves float32 fewer digits of the stem's gradient.
    "timm_resnet50": Case("resnet50", {"width": 1 / 16}, 34, 8, gradient_tolerance=3e-4),
    "timm_efficientnetv2_b0": Case("efficientnetv2_b0", _EFFICIENTNET, 33, 8),
    "timm_efficientnet_lite0": Case("efficientnet_lite0", _EFFICIENTNET, 24, 8),
}


class Reference:
    def __init__(self, file: str):
        tensors = load_file(FILES / f"{file}.safetensors")
        self.case = CASES[file]
        self.name, overrides = self.case.name, self.case.overrides
        self.images = jnp.asarray(tensors["input"].transpose(0, 2, 3, 1))
        self.labels = tensors["labels"]
        self.weights = self.part(tensors, "weights/")
        self.out = self.part(tensors, "out/")
        self.model = create_model(self.name, num_classes=10, **overrides)
        self.variables = from_torch(self.name, self.weights, **overrides)

    @staticmethod
    def part(tensors, prefix):
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


@pytest.fixture(scope="module", params=CASES)
def reference(request):
    return Reference(request.param)


@pytest.fixture(scope="module")
def training(reference):
    """Loss, logits, updated variables and gradients of one forward pass in training."""

    def loss(params):
        variables = reference.variables | {"params": params}
        logits, updates = reference.model.apply(
            variables, reference.images, train=True, mutable=["batch_stats"]
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, reference.labels)
        return losses.mean(), (logits, updates)

    (value, (logits, updates)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        reference.variables["params"]
    )
    return value, logits, updates, gradients


def assert_close(actual, expected, tolerance=1e-4):
    """Equal to `tolerance` of the reference's largest entry."""
    error = np.abs(np.asarray(actual) - expected).max()
    assert error <= tolerance * np.abs(expected).max(), (error, np.abs(expected).max())


def test_eval_logits(reference):
    logits = jax.jit(reference.model.apply)(reference.variables, reference.images)
    assert_close(logits, reference.out["logits_eval"])


def test_train_logits_and_loss(reference, training):
    loss, logits, _, _ = training
    assert_close(logits, reference.out["logits_train"])
    assert_close(loss, reference.out["loss_train"])


def test_gradients(reference, training):
    gradients = to_torch(reference.name, {"params": training[3]})
    listed = Reference.part(reference.out, "grad/")
    assert len(listed) == reference.case.gradients
    for name, expected in listed.items():
        assert_close(gradients[name], expected, reference.case.gradient_tolerance)


def test_running_statistics(reference, training):
    """PyTorch keeps the unbiased variance, Flax the biased: a batch adds n / (n - 1) as much."""
    counts = {}

    def record(next_call, args, kwargs, context):
        if isinstance(context.module, BatchNorm):
            counts[context.module.path] = args[0].size // args[0].shape[-1]
        return next_call(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(reference.model.apply, reference.variables, reference.images)
    before = traverse_util.flatten_dict(reference.variables["batch_stats"])
    after = traverse_util.flatten_dict(training[2]["batch_stats"])
    unbiased = {
        path: new
        if path[-1] == "mean"
        else 0.9 * old + (new - 0.9 * old) * counts[path[:-1]] / (counts[path[:-1]] - 1)
        for path, old, new in ((p, before[p], after[p]) for p in before)
    }
    ours = to_torch(reference.name, {"batch_stats": traverse_util.unflatten_dict(unbiased)})
    published = Reference.part(reference.out, "after/")
    assert len(published) == reference.case.statistics
    for name, expected in published.items():
        assert_close(ours[name], expected)


def test_round_trip_is_exact(reference):
    """Every key comes back, bit for bit, counters aside."""
    back = to_torch(reference.name, reference.variables)
    assert back.keys() == reference.weights.keys()
    for name, tensor in reference.weights.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[name], tensor)
