"""Random erasing (Zhong et al. 2017, arXiv 1708.04896) of one rectangle, with timm's numbers."""

import math

import jax
import jax.numpy as jnp

from pnet_jax.augment.boxes import within

MODES = ("pixel", "const")
_AREA = (0.02, 1 / 3)
_LOG_ASPECT = (math.log(0.3), -math.log(0.3))
# A rectangle that does not fit is drawn anew, so often.
_ATTEMPTS = 10


def random_erasing(images: jax.Array, prob: float, mode: str, key: jax.Array) -> jax.Array:
    """Erases a rectangle of each of `[N, H, W, C]` normalised floats with probability `prob`.

    Its area is 0.02 to 1/3 of the image's, its height 0.3 to 1 / 0.3 of its width. "pixel" fills it
    with values of a normal distribution, each its own, and "const" with 0, the mean colour.
    """
    erase_key, box_key, noise_key = jax.random.split(key, 3)
    erased = jax.random.bernoulli(erase_key, prob, images.shape[:1])
    inside = _boxes(images.shape[0], images.shape[1], images.shape[2], box_key)
    fill = jnp.zeros((), images.dtype)
    if mode == "pixel":
        fill = jax.random.normal(noise_key, images.shape, jnp.float32).astype(images.dtype)
    return jnp.where((inside & erased[:, None, None])[..., None], fill, images)


def _boxes(count: int, height: int, width: int, key: jax.Array) -> jax.Array:
    """A random rectangle of each image, `[N, H, W]`, True inside; empty if none came to fit."""
    area_key, aspect_key, place_key = jax.random.split(key, 3)
    shape = (count, _ATTEMPTS)
    low, high = _AREA
    area = height * width * jax.random.uniform(area_key, shape, minval=low, maxval=high)
    low, high = _LOG_ASPECT
    aspect = jnp.exp(jax.random.uniform(aspect_key, shape, minval=low, maxval=high))
    heights, widths = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
    fits = (heights < height) & (widths < width)
    first = jnp.argmax(fits, axis=1, keepdims=True)
    any_fits = fits.any(axis=1)
    box_height, box_width = (
        jnp.where(any_fits, jnp.take_along_axis(sizes, first, axis=1)[:, 0], 0)
        for sizes in (heights, widths)
    )
    place = jax.random.uniform(place_key, (2, count))
    top = jnp.floor(place[0] * (height - box_height + 1))
    left = jnp.floor(place[1] * (width - box_width + 1))
    return within(height, width, top, top + box_height, left, left + box_width)
