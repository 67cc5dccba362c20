"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899), either or both, as timm combines them."""

import dataclasses

import jax
import jax.numpy as jnp

from pnet_jax.augment.boxes import within

MODES = ("batch", "elem")


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How images are mixed with those at the mirrored places of the batch.

    Where both alphas are above 0, `switch_prob` is the probability of CutMix instead of mixup.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    # That there is any mixing.
    prob: float = 1.0
    switch_prob: float = 0.5
    # "batch": all images of a batch are treated alike; "elem": each has draws of its own.
    mode: str = "batch"


def mix(images: jax.Array, how: Mixing, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mixes image i of `[N, H, W, C]` floats with image N - 1 - i.

    Returns:
      The mixed images, and the share `[N]` float32 that each keeps of itself; the rest is its
      partner's. CutMix's share is exact: what the image's border cuts off its rectangle is counted.
    """
    count, height, width, _ = images.shape
    draws = count if how.mode == "elem" else 1
    mixup_key, cutmix_key, switch_key, apply_key, place_key = jax.random.split(key, 5)
    cut = jnp.full(draws, how.cutmix_alpha > 0)
    if how.mixup_alpha > 0 and how.cutmix_alpha > 0:
        cut = jax.random.bernoulli(switch_key, how.switch_prob, (draws,))
    applied = jax.random.bernoulli(apply_key, how.prob, (draws,))
    share = jnp.where(
        cut, _beta(cutmix_key, how.cutmix_alpha, draws), _beta(mixup_key, how.mixup_alpha, draws)
    )
    share = jnp.where(applied, share, 1.0)
    inside = _boxes(share, height, width, place_key)
    outside_share = 1 - inside.sum(axis=(1, 2), dtype=jnp.float32) / (height * width)
    partners = images[::-1]
    wide = (draws, 1, 1, 1)
    kept = share.reshape(wide)
    blended = kept * images.astype(jnp.float32) + (1 - kept) * partners.astype(jnp.float32)
    mixed = jnp.where(
        cut.reshape(wide),
        jnp.where(inside[..., None], partners, images),
        blended.astype(images.dtype),
    )
    return mixed, jnp.broadcast_to(jnp.where(cut, outside_share, share), (count,))


def _beta(key: jax.Array, alpha: float, draws: int) -> jax.Array:
    return jax.random.beta(key, alpha, alpha, (draws,)) if alpha > 0 else jnp.ones(draws)


def _boxes(share: jax.Array, height: int, width: int, key: jax.Array) -> jax.Array:
    """CutMix's rectangles `[D, H, W]`: `1 - share` of the area about a centre drawn evenly."""
    ratio = jnp.sqrt(1 - share)
    box_height, box_width = ((size * ratio).astype(jnp.int32) for size in (height, width))
    y_key, x_key = jax.random.split(key)
    y = jax.random.randint(y_key, share.shape, 0, height)
    x = jax.random.randint(x_key, share.shape, 0, width)
    top, left = y - box_height // 2, x - box_width // 2
    return within(height, width, top, top + box_height, left, left + box_width)
