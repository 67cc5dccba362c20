"""A network with branches and the plain one that they merge into compute the same."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.convert import merge_branches
from pnet_jax.convert.reparam import MERGES_INTO
from pnet_jax.models import create_model, list_models
from pnet_jax.models.ghostnet import GhostNet, Row

# Bottlenecks with every kind of convolution: with and without stride, shortcut and change of width.
STAGES = ((Row(3, 16, 16, 0, 1),), (Row(5, 48, 24, 0.25, 2),), (Row(3, 48, 32, 0, 1),))


def network(**fields):
    return GhostNet(num_classes=10, stages=STAGES, width=0.5, **fields)


@pytest.fixture(scope="module")
def variables():
    model = network(num_branches=3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    rng = np.random.default_rng(0)

    def value(path, leaf):
        name = path[-1].key
        if name in ("scale", "var"):
            return np.float32(rng.uniform(0.3, 1.0, leaf.shape))
        return np.float32(rng.normal(size=leaf.shape) / max(1, np.prod(leaf.shape[:-1])) ** 0.5)

    return jax.tree_util.tree_map_with_path(value, shapes)


def test_logits_are_the_same(variables, rng):
    images = jnp.float32(rng.normal(size=(4, 32, 32, 3)))
    merged = merge_branches(variables)
    expected = jax.jit(network(num_branches=3).apply)(variables, images)
    logits = jax.jit(network().apply)(merged, images)
    scale = float(jnp.abs(expected).max())
    assert scale > 0.1
    np.testing.assert_allclose(logits, expected, atol=1e-5 * scale)
    assert float(jnp.abs(expected - expected[:1]).max()) > 0.01 * scale


def test_what_is_merged_is_the_plain_network(variables):
    plain = jax.eval_shape(network().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    merged = merge_branches(variables)
    of = functools.partial(jax.tree.map, lambda leaf: (leaf.shape, leaf.dtype))
    assert of(merged) == of(plain)


def test_without_branches_nothing_changes(variables):
    merged = merge_branches(variables)
    again = merge_branches(merged)
    jax.tree.map(np.testing.assert_array_equal, again, merged)


def test_named_networks():
    """Both sides exist and differ in their branches alone."""
    for name, plain in MERGES_INTO.items():
        assert {name, plain} <= set(list_models())
        assert create_model(name).copy(num_branches=1) == create_model(plain)
