"""The training loss and the counts of an evaluation, both over examples with weights."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


def smoothed_cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    """-sum_c q_c log p_c with q = (1 - smoothing) onehot + smoothing / C: `[N, C]` logits to `[N]`.

    Written with the log-sum-exp, so that no `[N, C]` target exists; C is 21,841 in the largest run.
    """
    log_normalizer = jax.nn.logsumexp(logits, axis=-1)
    at_label = jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    target = (1 - smoothing) * at_label
    if smoothing:
        target += smoothing * logits.mean(axis=-1)
    return log_normalizer - target


class Targets(NamedTuple):
    """The classes that each image has a part of, `[N, P]`, and the parts' weights `[N, P]`."""

    labels: jax.Array
    weights: jax.Array


def targets_of(labels: jax.Array, weights: jax.Array, share: jax.Array | None) -> Targets:
    """One class of each plain image, or two of each that `augment.mixing` made.

    Image i is class `labels[i]` with its `share` and class `labels[N - 1 - i]` with the rest.
    `weights` `[N]` belong to the images before mixing.
    """
    if share is None:
        return Targets(labels[:, None], weights[:, None])
    return Targets(
        jnp.stack([labels, labels[::-1]], axis=1),
        jnp.stack([share * weights, (1 - share) * weights[::-1]], axis=1),
    )


def weighted_cross_entropy(logits: jax.Array, targets: Targets, smoothing: float) -> jax.Array:
    """Losses `[N]`, each the sum over its image's classes.

    The cross-entropy is linear in the target, so that of mixed targets is mixed, and no `[N, C]`
    target exists.
    """
    return sum(
        smoothed_cross_entropy(logits, labels, smoothing) * weights
        for labels, weights in zip(targets.labels.T, targets.weights.T, strict=True)
    )


def in_top_k(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Whether fewer than k classes reach the true one's score, `[N]`; never for label -1.

    Ties count against the prediction, so that constant logits score nothing.
    """
    at_label = jnp.take_along_axis(logits, jnp.maximum(labels, 0)[:, None], axis=-1)
    # Negated, so that a logit that is not a number is a rival too.
    rivals = jnp.sum(~(logits < at_label), axis=-1) - 1
    return (rivals < k) & (labels >= 0)
