"""The training loss and the counts of an evaluation, both over examples with weights."""

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


def mixed_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    share: jax.Array | None,
    smoothing: float,
) -> jax.Array:
    """Weighted losses `[N]` of images that `augment.mixing` made, or of plain ones.

    Image i is class `labels[i]` with its `share` and class `labels[N - 1 - i]` with the rest. The
    cross-entropy is linear in the target, so the two of them are mixed and no `[N, C]` target
    exists. `weights` `[N]` belong to the images before mixing.
    """
    own = smoothed_cross_entropy(logits, labels, smoothing) * weights
    if share is None:
        return own
    others = smoothed_cross_entropy(logits, labels[::-1], smoothing) * weights[::-1]
    return share * own + (1 - share) * others


def in_top_k(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Whether fewer than k classes reach the true one's score, `[N]`; never for label -1.

    Ties count against the prediction, so that constant logits score nothing.
    """
    at_label = jnp.take_along_axis(logits, jnp.maximum(labels, 0)[:, None], axis=-1)
    # Negated, so that a logit that is not a number is a rival too.
    rivals = jnp.sum(~(logits < at_label), axis=-1) - 1
    return (rivals < k) & (labels >= 0)
