"""The loss against Optax, the accuracies against a plain count."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pnet_jax.training.loss import (
    in_top_k,
    smoothed_cross_entropy,
    targets_of,
    weighted_cross_entropy,
)


def soft_label_loss(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_equal_to_the_soft_label_cross_entropy(smoothing: float, rng: np.random.Generator) -> None:
    logits = jnp.float32(rng.normal(size=(32, 101)) * 5)
    labels = jnp.int32(rng.integers(0, 101, 32))
    losses = smoothed_cross_entropy(logits, labels, smoothing)
    assert losses.shape == (32,)
    np.testing.assert_allclose(losses, soft_label_loss(logits, labels, smoothing), rtol=1e-5)

    # Weighted means, as the step takes them, and their gradients.
    weights = jnp.float32(rng.integers(0, 3, 32))
    gradient, expected = (
        jax.grad(lambda x, loss=loss: (loss(x, labels, smoothing) * weights).mean())(logits)
        for loss in (smoothed_cross_entropy, soft_label_loss)
    )
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)
    assert not np.any(gradient[weights == 0])


def test_mixed_images_have_mixed_targets(rng: np.random.Generator) -> None:
    """Value and gradient of the cross-entropy with the whole mixed and smoothed targets."""
    logits = jnp.float32(rng.normal(size=(32, 101)) * 5)
    labels, share = jnp.int32(rng.integers(0, 101, 32)), jnp.float32(rng.uniform(size=32))
    ones = jnp.ones(32)

    def expected(logits: jax.Array) -> jax.Array:
        own = optax.smooth_labels(jax.nn.one_hot(labels, 101), 0.1)
        targets = share[:, None] * own + (1 - share)[:, None] * own[::-1]
        return optax.softmax_cross_entropy(logits, targets)

    mixed = targets_of(labels, ones, share)
    losses = weighted_cross_entropy(logits, mixed, 0.1)
    np.testing.assert_allclose(losses, expected(logits), rtol=1e-5)
    gradient = jax.grad(lambda x: weighted_cross_entropy(x, mixed, 0.1).mean())(logits)
    by_targets = jax.grad(lambda x: expected(x).mean())(logits)
    np.testing.assert_allclose(gradient, by_targets, rtol=1e-4, atol=1e-7)
    plain = weighted_cross_entropy(logits, targets_of(labels, 2 * ones, None), 0.1)
    np.testing.assert_array_equal(plain, 2 * smoothed_cross_entropy(logits, labels, 0.1))


def test_the_part_of_a_corrupt_image_weighs_nothing() -> None:
    """Image 0 is black with weight 0: in the mixture of both, only image 1's label counts."""
    logits = jnp.array([[1.0, 0.0, 3.0], [2.0, 1.0, 0.0]])
    labels, weights, share = jnp.array([0, 1]), jnp.array([0.0, 1.0]), jnp.array([0.3, 0.3])
    losses = weighted_cross_entropy(logits, targets_of(labels, weights, share), 0.0)
    of_one = smoothed_cross_entropy(logits, jnp.array([1, 1]), 0.0)
    np.testing.assert_allclose(losses, jnp.array([0.7, 0.3]) * of_one, rtol=1e-6)


def test_constant_logits_lose_log_of_the_classes() -> None:
    losses = smoothed_cross_entropy(jnp.full((2, 50), 7.0), jnp.array([0, 49]), 0.1)
    np.testing.assert_allclose(losses, np.log(50), rtol=1e-6)


def test_large_logits_stay_finite() -> None:
    logits = jnp.array([[1e4, -1e4, 0.0]])
    assert float(smoothed_cross_entropy(logits, jnp.array([0]), 0.0)[0]) == 0.0
    assert float(smoothed_cross_entropy(logits, jnp.array([1]), 0.0)[0]) == 2e4


@pytest.mark.parametrize("k", [1, 2, 5, 9, 10, 50])
def test_top_k_is_a_count_of_better_classes(k: int, rng: np.random.Generator) -> None:
    logits = rng.permuted(np.tile(np.arange(10.0), (64, 1)), axis=1)
    labels = rng.integers(0, 10, 64)
    best = np.argsort(-logits, axis=1)[:, :k]
    expected = (best == labels[:, None]).any(axis=1)
    got = in_top_k(jnp.float32(logits), jnp.int32(labels), k)
    np.testing.assert_array_equal(got, expected)
    assert got.all() == (k >= 10)


def test_ties_count_against_the_prediction() -> None:
    logits = jnp.array([[1.0, 3.0, 3.0, 0.0]] * 4)
    labels = jnp.arange(4)
    assert in_top_k(logits, labels, 1).tolist() == [False, False, False, False]
    assert in_top_k(logits, labels, 2).tolist() == [False, True, True, False]
    assert in_top_k(logits, labels, 3).tolist() == [True, True, True, False]
    assert not in_top_k(jnp.zeros((1, 4)), jnp.array([0]), 3)


@pytest.mark.parametrize("logits", [[np.nan] * 4, [np.nan, 1.0, 0.0, 2.0]])
def test_logits_that_are_not_numbers_score_nothing(logits: list[float]) -> None:
    # Neither as the label's own score nor as a rival of the best.
    for label in range(4):
        assert not in_top_k(jnp.array([logits]), jnp.array([label]), 1)


def test_a_number_among_others_that_are_not_keeps_its_rank() -> None:
    logits = jnp.array([[np.nan, 1.0, 0.0, 2.0]])
    assert [bool(in_top_k(logits, jnp.array([3]), k)[0]) for k in (1, 2)] == [False, True]
    assert [bool(in_top_k(logits, jnp.array([1]), k)[0]) for k in (1, 2, 3)] == [False, False, True]


@pytest.mark.parametrize("k", [1, 5, 10])
def test_label_minus_one_is_never_right(k: int) -> None:
    logits = jnp.array([[5.0, 1.0, 0.0, 2.0], [1.0, 0.0, 2.0, 5.0]])
    assert in_top_k(logits, jnp.array([-1, -1]), k).tolist() == [False, False]
