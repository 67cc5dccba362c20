"""The TPU kernels, interpreted: the mixed product and its gradients, whole and ragged blocks."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.ops import pointwise_tpu
from pnet_jax.ops.pointwise import dynamic_pointwise
from pnet_jax.ops.pointwise_tpu import pointwise
from pnet_jax.parallel.ahead_of_time import compile_step, tpu_devices
from pnet_jax.parallel.mesh import make_mesh, replicated


def reference(parts, coefficients, experts):
    return jnp.einsum("pcn,nk,kco->pon", jnp.concatenate(parts, 1), coefficients, experts)


def draw(rng, pixels, channels, samples, features, dtype):
    """The channels in two parts, of which the first is the smaller."""
    shapes = (pixels, channels, samples), (samples, 4), (4, channels, features)
    x, *others = (jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)
    return tuple(jnp.split(x, [channels // 3], axis=1)), *others


def assert_close(actual, expected, tolerance):
    expected = np.asarray(expected, np.float32)
    error = np.abs(np.asarray(actual, np.float32) - expected).max()
    assert error <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize(
    ("pixels", "channels", "samples", "features", "pixels_a_block"),
    [
        (6, 8, 128, 16, 3),  # whole blocks
        (7, 12, 128, 10, 3),  # the last block is ragged, and experts' rows are padded
        (4, 5, 256, 7, 2),  # two blocks of samples
        (3, 4, 72, 6, 3),  # samples that do not fill the lanes
    ],
)
def test_values_and_gradients(
    rng, monkeypatch, pixels, channels, samples, features, pixels_a_block
):
    operands = draw(rng, pixels, channels, samples, features, jnp.float32)
    lanes = min(samples, 128)
    # The gradient's blocks hold x twice; the forward pass takes a few more pixels at a time.
    monkeypatch.setattr(
        pointwise_tpu, "_BLOCK_BYTES", pixels_a_block * (2 * channels + features) * lanes * 4
    )
    y, pull_back = jax.vjp(lambda *operands: pointwise(*operands, True), *operands)
    expected, expected_pull_back = jax.vjp(reference, *operands)
    assert_close(y, expected, 1e-5)
    dy = jnp.asarray(rng.normal(size=y.shape), jnp.float32)
    results, wanted_results = map(jax.tree.leaves, (pull_back(dy), expected_pull_back(dy)))
    assert len(results) == 4
    for gradient, wanted in zip(results, wanted_results, strict=True):
        assert gradient.shape == wanted.shape
        assert_close(gradient, wanted, 1e-5)


def test_bfloat16_sums_in_float32(rng):
    """A sum over pixels and samples keeps what bfloat16 would round away."""
    operands = draw(rng, 5, 8, 128, 16, jnp.bfloat16)
    wide = jax.tree.map(jnp.float32, operands)
    y, pull_back = jax.vjp(lambda *operands: pointwise(*operands, True), *operands)
    expected, expected_pull_back = jax.vjp(reference, *wide)
    assert y.dtype == jnp.bfloat16
    assert_close(y, expected, 0.01)
    results = jax.tree.leaves(pull_back(jnp.ones_like(y)))
    wanted_results = jax.tree.leaves(expected_pull_back(jnp.ones_like(expected)))
    for gradient, wanted in zip(results, wanted_results, strict=True):
        assert gradient.dtype == jnp.bfloat16
        assert_close(gradient, wanted, 0.01)


@pytest.mark.parametrize(
    ("chip", "features", "fits"),
    [("TPU v4", 696, True), ("TPU v4", 1392, False), ("TPU v5 lite", 1392, True)],
)
def test_what_fits_into_the_memory_of_a_chip(chip, features, fits):
    """Layers at 7 px of `parameternet_300m`."""
    facts = {"device_kind": chip, "num_cores": 1, "platform": "tpu"}
    # Older versions of JAX take no platform.
    taken = inspect.signature(jax.sharding.AbstractDevice).parameters
    of_chip = jax.sharding.AbstractDevice(**{k: v for k, v in facts.items() if k in taken})
    mesh = jax.sharding.AbstractMesh((1,), ("data",), abstract_device=of_chip)
    experts = jax.ShapeDtypeStruct((4, 232, features), jnp.bfloat16)
    with jax.sharding.use_abstract_mesh(mesh):
        assert pointwise_tpu.fit(experts) == fits


@pytest.mark.aot
@pytest.mark.slow
@pytest.mark.parametrize("features", [696, 1392])
def test_layers_compile_for_a_chip_with_little_memory(features):
    pytest.importorskip("libtpu")
    mesh = make_mesh("data=-1,fsdp=1", tpu_devices("v4:2x2x1")[:1])
    at = functools.partial(jax.ShapeDtypeStruct, sharding=replicated(mesh))
    arguments = (
        (at((128, 7, 7, 232), jnp.bfloat16),),
        at((128, 4), jnp.bfloat16),
        at((4, 232, features), jnp.bfloat16),
    )

    def loss(*arguments):
        return jnp.sum(dynamic_pointwise(*arguments).astype(jnp.float32) ** 2)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        lowered = gradient.lower(*arguments).as_text()
        compile_step(gradient, *arguments, devices=mesh.devices.flat)
    assert ("dynamic_pointwise_gradients" in lowered) == (features == 696)
