"""Against the published PyTorch code: a small ParameterNet each (width .15, 10 classes, 64 px, 4
experts).

The files in tests/parity hold its weights, an input, and what PyTorch computed from them:
evaluation and training logits, loss, gradients and the running statistics after one forward pass
in training.
"""

import pathlib

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

OVERRIDES = {"width": 0.15, "routing": "sigmoid_linear", "drop_rate": 0.0}
FILES = pathlib.Path(__file__).parent / "parity"


class Reference:
    def __init__(self, size: str):
        tensors = load_file(FILES / f"parameternet_{size}_w015_official.safetensors")
        self.name = f"parameternet_{size}"
        self.images = jnp.asarray(tensors["input"].transpose(0, 2, 3, 1))
        self.labels = tensors["labels"]
        self.weights = self.part(tensors, "weights/")
        self.out = self.part(tensors, "out/")
        self.model = create_model(self.name, num_classes=10, **OVERRIDES)
        self.variables = from_torch(self.name, self.weights, **OVERRIDES)

    @staticmethod
    def part(tensors, prefix):
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


@pytest.fixture(scope="module", params=["300m", "600m"])
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
    assert len(listed) > 40
    for name, expected in listed.items():
        assert_close(gradients[name], expected)


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
    assert len(published) >= 10
    for name, expected in published.items():
        assert_close(ours[name], expected)


def test_round_trip_is_exact(reference):
    """Every key comes back, bit for bit, counters aside."""
    back = to_torch(reference.name, reference.variables)
    assert back.keys() == reference.weights.keys()
    for name, tensor in reference.weights.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[name], tensor)
