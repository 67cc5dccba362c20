"""The state at step 0."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pnet_jax.training.state import TrainState, create_state

VARIABLES = {
    "params": {"layer": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}},
    "batch_stats": {"bn": {"mean": np.float32([1, 2])}},
}


@pytest.fixture
def state() -> TrainState:
    return create_state(jax.tree.map(jnp.asarray, VARIABLES), optax.adamw(1e-3))


def test_contents(state: TrainState) -> None:
    assert state.step.dtype == jnp.int32
    assert state.step.shape == ()
    assert int(state.step) == 0
    kernel = VARIABLES["params"]["layer"]["kernel"]
    np.testing.assert_array_equal(state.params["layer"]["kernel"], kernel)
    np.testing.assert_array_equal(state.batch_stats["bn"]["mean"], [1, 2])
    assert jax.tree.structure(state.ema) == jax.tree.structure(VARIABLES)
    np.testing.assert_array_equal(state.ema["params"]["layer"]["kernel"], kernel)
    np.testing.assert_array_equal(state.ema["batch_stats"]["bn"]["mean"], [1, 2])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.opt_state))


def test_no_buffer_is_there_twice(state: TrainState) -> None:
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(pointers)) == len(pointers)
    # A step gives the whole state away, which fails for a buffer that is in it twice.
    moved = jax.jit(lambda s: s.replace(step=s.step + 1), donate_argnums=0)(state)
    assert int(moved.step) == 1
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_it_may_be_traced(state: TrainState) -> None:
    shapes = jax.eval_shape(lambda v: create_state(v, optax.adamw(1e-3)), VARIABLES)
    assert shapes.params["layer"]["kernel"] == jax.ShapeDtypeStruct((2, 3), jnp.float32)
    assert shapes.step == jax.ShapeDtypeStruct((), jnp.int32)
    assert jax.tree.structure(shapes) == jax.tree.structure(state)
