"""The moving average against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.training.ema import update_ema


@pytest.mark.parametrize(
    ("step", "decay", "expected"),
    [
        (1000, 0.9, 0.9 * 10 + 0.1 * 20),
        (1000, 0.99, 0.99 * 10 + 0.01 * 20),
        # A young average: (1 + t) / (10 + t) is below the decay.
        (0, 0.9999, 0.1 * 10 + 0.9 * 20),
        (8, 0.9999, 0.5 * 10 + 0.5 * 20),
        (90, 0.9999, 0.91 * 10 + 0.09 * 20),
        # The ramp meets the decay of 0.9 at step 80.
        (79, 0.9, 80 / 89 * 10 + 9 / 89 * 20),
        (80, 0.9, 0.9 * 10 + 0.1 * 20),
        # No average.
        (0, 0.0, 20.0),
        (1000, 0.0, 20.0),
    ],
)
def test_formula(step: int, decay: float, expected: float) -> None:
    average = update_ema(jnp.array(10.0), jnp.array(20.0), jnp.array(step), decay)
    assert float(average) == pytest.approx(expected, rel=1e-6)


def test_every_leaf_of_a_tree(rng: np.random.Generator) -> None:
    old = {"params": {"a": rng.normal(size=(3, 4))}, "batch_stats": {"b": rng.normal(size=5)}}
    new = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), old)
    old, new = (jax.tree.map(jnp.float32, tree) for tree in (old, new))
    average = jax.jit(update_ema, static_argnums=3)(old, new, jnp.array(500), 0.9)
    expected = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, old, new)
    assert jax.tree.structure(average) == jax.tree.structure(old)
    for got, wanted in zip(jax.tree.leaves(average), jax.tree.leaves(expected), strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)


def test_an_average_of_equal_values_is_that_value() -> None:
    value = jnp.array([0.1, -1e-30, 3e7], jnp.float32)
    np.testing.assert_array_equal(update_ema(value, value, jnp.array(7), 0.999), value)
