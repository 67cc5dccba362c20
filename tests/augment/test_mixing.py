"""Mixup and CutMix: what is in the image is what the share says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.augment.mixing import Mixing, mix

# Image i is plain i, so that a mixture shows its parts.
COUNT, SIZE = 64, 16
PLAIN = jnp.broadcast_to(
    jnp.arange(COUNT, dtype=jnp.float32)[:, None, None, None], (COUNT, SIZE, SIZE, 3)
)
OWN, OTHER = np.arange(COUNT), np.arange(COUNT)[::-1]


def mixed(key, **fields):
    images, share = mix(PLAIN, Mixing(**fields), key)
    assert images.shape == PLAIN.shape
    assert (share.shape, share.dtype) == ((COUNT,), jnp.float32)
    return np.asarray(images), np.asarray(share)


@pytest.mark.parametrize("mode", ["batch", "elem"])
def test_mixup(mode, key):
    images, share = mixed(key, mixup_alpha=0.8, mode=mode)
    expected = share * OWN + (1 - share) * OTHER
    np.testing.assert_allclose(
        images, np.broadcast_to(expected[:, None, None, None], images.shape), rtol=1e-5
    )
    assert (len(set(share.tolist())) == 1) == (mode == "batch")
    assert share.min() > 0
    assert share.max() < 1


@pytest.mark.parametrize("mode", ["batch", "elem"])
def test_cutmix(mode, key):
    images, share = mixed(key, cutmix_alpha=1.0, mode=mode)
    own = images == OWN[:, None, None, None]
    assert (own | (images == OTHER[:, None, None, None])).all()
    np.testing.assert_allclose(own[..., 0].mean((1, 2)), share, atol=1e-6)
    assert (len(set(share.tolist())) == 1) == (mode == "batch")
    for mask in ~own[..., 0]:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns)  # a rectangle


def test_switching_between_both(key):
    """Three in four cut, by draws of each image."""
    keys = jax.random.split(key, 20)
    cut = []
    for each in keys:
        images, share = mixed(
            each, mixup_alpha=1.0, cutmix_alpha=1.0, switch_prob=0.75, mode="elem"
        )
        plain = (images == images[:, :1, :1]).all((1, 2, 3))
        own = np.isclose(images, OWN[:, None, None, None])
        other = np.isclose(images, OTHER[:, None, None, None])
        cut.append((own | other).all((1, 2, 3)) & ~(plain & (share > 0) & (share < 1)))
    share_cut = np.mean(cut)
    assert share_cut == pytest.approx(0.75, abs=4 * 0.433 / np.sqrt(20 * COUNT))


def test_shares_follow_the_beta_distribution(key):
    """Mean 1/2 and variance 1 / (4 (2 alpha + 1))."""
    shares = np.concatenate(
        [mixed(each, mixup_alpha=0.2, mode="elem")[1] for each in jax.random.split(key, 30)]
    )
    assert shares.mean() == pytest.approx(0.5, abs=0.04)
    assert shares.var() == pytest.approx(1 / (4 * 1.4), rel=0.1)


@pytest.mark.parametrize("mode", ["batch", "elem"])
def test_probability_of_any_mixing(mode, key):
    images, share = mixed(key, mixup_alpha=1.0, cutmix_alpha=1.0, prob=0.0, mode=mode)
    np.testing.assert_array_equal(images, PLAIN)
    np.testing.assert_array_equal(share, 1)
    _, share = mixed(key, mixup_alpha=1.0, prob=0.5, mode="elem")
    assert 0.25 < (share == 1).mean() < 0.75
