"""Batches in parts: how they are cut, and that their sums are those of the whole."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.config import Config, ModelConfig
from pnet_jax.errors import UserError
from pnet_jax.parallel.mesh import batch_sharding, make_mesh
from pnet_jax.training.accumulation import accumulate, interleave


def config(batch: int, steps: int, groups: int = 1, statistics: str = "batch") -> Config:
    model = ModelConfig(bn_groups=groups, bn_statistics=statistics)
    return Config(global_batch_size=batch, accumulate_steps=steps, model=model)


def test_groups_are_never_cut():
    assert interleave(config(64, 4, groups=8), 2, batch_norm=True) == 8
    # Nothing keeps images together.
    assert interleave(config(64, 4, groups=8), 2, batch_norm=False) == 8
    assert interleave(config(64, 4, groups=1, statistics="running"), 4, batch_norm=True) == 16
    with pytest.raises(UserError) as caught:
        interleave(config(64, 4, groups=2), 2, batch_norm=True)
    assert str(caught.value) == (
        "config.accumulate_steps = 4 takes images of a batch-norm group apart; set "
        "config.model.bn_groups = 2 to a multiple of 4."
    )


def test_every_device_has_a_share_of_each_part():
    with pytest.raises(UserError) as caught:
        interleave(config(64, 4), 32, batch_norm=False)
    assert str(caught.value) == (
        "config.global_batch_size = 64 cannot be split over config.accumulate_steps = 4 and 32 "
        "devices; take a multiple of 128."
    )


@pytest.mark.parametrize("runs", [4, 8, 16])
def test_sums_over_parts(runs: int, rng: np.random.Generator):
    x = rng.normal(size=(32, 5)).astype(np.float32)
    batch = batch_sharding(make_mesh("data=4", jax.devices()[:4]))
    params = {"w": jnp.ones(5)}
    seen = []

    def loss_fn(params, inputs, key):
        seen.append(inputs["x"].shape)
        loss = ((inputs["x"] @ params["w"]) ** 2).sum()
        # Each part has a key of its own.
        return loss, {"keys": jax.random.bits(key) % 1000 * 1.0, "rows": inputs["row"]}

    gradient_fn = jax.value_and_grad(loss_fn, has_aux=True)
    inputs = jax.device_put({"x": x, "row": np.arange(32.0)}, batch)
    sums = jax.jit(
        lambda params, inputs, key: accumulate(
            gradient_fn, params, inputs, key, steps=4, runs=runs, batch=batch
        )
    )
    (loss, aux), gradients = sums(params, inputs, jax.random.key(0))
    (expected, _), expected_gradients = gradient_fn(params, {"x": x, "row": 0.0}, jax.random.key(0))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(gradients["w"], expected_gradients["w"], rtol=1e-5)
    keys = jax.random.split(jax.random.key(0), 4)
    assert aux["keys"] == sum(float(jax.random.bits(key) % 1000) for key in keys)
    assert (8, 5) in seen
    # Part i has the runs i, i + 4, ...: the sum over parts of the row at each place.
    parts = np.arange(32).reshape(runs // 4, 4, -1).swapaxes(0, 1).reshape(4, 8)
    np.testing.assert_array_equal(aux["rows"], parts.sum(axis=0))


def test_validation_of_the_field():
    with pytest.raises(UserError, match="accumulate_steps = 3 does not divide"):
        dataclasses.replace(Config(), accumulate_steps=3).validate()
