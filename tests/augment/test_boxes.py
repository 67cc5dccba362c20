"""Rectangles, cut off by the image's border."""

import jax.numpy as jnp

from pnet_jax.augment.boxes import within


def test_ends_are_out_and_borders_cut():
    mask = within(
        4,
        5,
        jnp.array([1, -2, 2]),
        jnp.array([3, 1, 2]),
        jnp.array([0, 3, 0]),
        jnp.array([2, 9, 5]),
    )
    assert mask.shape == (3, 4, 5)
    assert mask.sum((1, 2)).tolist() == [4, 2, 0]
    assert mask[0, 1:3, :2].all()
    assert mask[1, 0, 3:].all()
