"""The wanted images and no others, however many are taken at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.augment.some import on_some


def added(images, amount):
    return images + amount[:, None, None, None].astype(jnp.uint8)


@pytest.mark.parametrize("at_once", [1, 3, 5, 16, 40])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_only_the_wanted_with_their_own_parameters(at_once, share, rng):
    images = rng.integers(0, 256, (16, 3, 4, 3), np.uint8)
    wanted = rng.permutation(16) < round(16 * share)
    amounts = rng.integers(1, 100, 16)
    ours = jax.jit(on_some, static_argnames=("function", "at_once"))(
        function=added, images=images, parameters=amounts, wanted=wanted, at_once=at_once
    )
    expected = np.where(wanted, amounts, 0)[:, None, None, None].astype(np.uint8) + images
    np.testing.assert_array_equal(ours, expected)


def test_costs_the_groups_that_it_takes(rng):
    """Four of sixteen, at most three at once: two rounds."""
    rounds = []

    def counted(images, amount):
        jax.debug.callback(lambda: rounds.append(images.shape[0]))
        return added(images, amount)

    images = rng.integers(0, 256, (16, 2, 2, 3), np.uint8)
    on_some(counted, images, jnp.ones(16), jnp.arange(16) % 4 == 1, at_once=3)
    jax.effects_barrier()
    assert rounds == [3, 3]
