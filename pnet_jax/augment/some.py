"""An operation on those images of a batch that want it, at the cost of those images."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def on_some(
    function: Callable[[jax.Array, Any], jax.Array],
    images: jax.Array,
    parameters: Any,
    wanted: jax.Array,
    *,
    at_once: int,
) -> jax.Array:
    """`function(images, parameters)` of the images that are `wanted`, and the others as they are.

    Under `jit`, where shapes are fixed, an operation that few images of a batch want would be paid
    for all of them. Here groups of `at_once` images are taken until none is left: as many rounds as
    it takes, so the result does not depend on `at_once`, which is best a little above the expected
    number.

    Args:
      function: maps `[G, H, W, C]` and parameters `[G, ...]` to `[G, H, W, C]`, by image.
      images: `[N, H, W, C]` uint8.
      parameters: arrays `[N, ...]`.
      wanted: `[N]` bool.
    """
    count = images.shape[0]
    at_once = min(at_once, count)
    # Each wanted image's number among them; -1 otherwise.
    rank = jnp.where(wanted, jnp.cumsum(wanted, dtype=jnp.int32) - 1, -1)
    total = jnp.sum(wanted, dtype=jnp.int32)

    def group(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        start, images = carry
        # Images are taken and put back by matrix products, exact for bytes: a gather over samples
        # would force another layout than the one that the network keeps them in.
        place = start + jnp.arange(at_once, dtype=jnp.int32)
        here = place[:, None] == rank
        pick = here.astype(jnp.float32)
        taken = jnp.einsum("gn,nhwc->ghwc", pick, images.astype(jnp.float32))
        index = jnp.argmax(here, axis=1)
        theirs = jax.tree.map(lambda leaf: leaf[index], parameters)
        changed = function(taken.astype(images.dtype), theirs)
        back = jnp.einsum("gn,ghwc->nhwc", pick, changed.astype(jnp.float32))
        in_group = here.any(axis=0)[:, None, None, None]
        return start + at_once, jnp.where(in_group, back.astype(images.dtype), images)

    start = jnp.int32(0)
    return lax.while_loop(lambda carry: carry[0] < total, group, (start, images))[1]
