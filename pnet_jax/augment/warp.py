"""Pillow's rotate, shear and translate with bilinear interpolation, as shears along one axis.

The image at (x, y) is taken from another place of itself. A shear moves a row, or a column, as a
whole; moving rows by amounts that only the device knows is a few steps by powers of two, each taken
or not, while gathering pixels would be slow on a TPU. A rotation is three shears (Paeth, "A fast
algorithm for general raster rotation", 1986); it interpolates three times where Pillow does twice.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Warp:
    """What is done to each image; fields are `[N]` float32, and zeros change nothing."""

    # Counter-clockwise, in degrees, about the centre.
    rotate: jax.Array
    # The pixel at (x, y) is taken from (x + shear_x y, y + shear_y x), about the upper left corner.
    shear_x: jax.Array
    shear_y: jax.Array
    # ... or from (x + translate_x, y + translate_y), in pixels.
    translate_x: jax.Array
    translate_y: jax.Array


def warp(
    images: jax.Array,
    how: Warp,
    fill: tuple[int, int, int],
    *,
    max_degrees: float,
    max_pixels: float,
) -> jax.Array:
    """Warps `[N, H, W, 3]` uint8; what comes from outside the image is `fill`.

    At most one field of an image may differ from zero. Shears and translations are Pillow's within
    one level. `max_degrees`, below 180, bounds rotations, and `max_pixels` how far a shear or a
    translation takes a pixel: the nearer to the truth, the less is computed.
    """
    count, height, width, _ = images.shape
    angle = -jnp.deg2rad(how.rotate)
    slant, rise = jnp.tan(angle / 2)[:, None], -jnp.sin(angle)[:, None]
    # The middle shear works on rows that reach beyond the picture.
    most = math.radians(max_degrees)
    sideways = math.tan(most / 2) * (height / 2 + 1)
    margin = math.ceil(sideways) + 1
    upward = math.sin(min(most, math.pi / 2)) * (width / 2 + margin)
    x = jnp.arange(-margin, width + margin) + 0.5
    y = jnp.arange(-1, height + 1) + 0.5
    turned = slant * (y - height / 2)
    rows = turned + how.shear_x[:, None] * y + how.translate_x[:, None]
    columns = rise * (x - width / 2) + how.shear_y[:, None] * x + how.translate_y[:, None]
    # Pillow rounds down, once; the first two of three shears must not.
    rounding = jnp.where(how.rotate != 0, 0.5, 0.0)
    canvas = jnp.pad(images, ((0, 0), (1, 1), (margin, margin), (0, 0)), mode="edge")
    canvas = _moved(canvas, rows[:, :, None], 2, rounding, max(max_pixels, sideways))
    canvas = _moved(canvas, columns[:, None, :], 1, rounding, max(max_pixels, upward))
    canvas = _moved(canvas, turned[:, :, None], 2, jnp.zeros(count), sideways)
    cut = canvas[:, 1 : 1 + height, margin : margin + width]
    return jnp.where(_inside(how, height, width)[..., None], cut, jnp.array(fill, jnp.uint8))


def _moved(
    images: jax.Array, shift: jax.Array, axis: int, rounding: jax.Array, bound: float
) -> jax.Array:
    """Each pixel from `shift` pixels further on along `axis`, interpolated between two of them.

    Args:
      images: `[N, H, W, 3]` uint8.
      shift: `[N, H, 1]` or `[N, 1, W]`; beyond `bound` the result means nothing.
      rounding: `[N]`, added before rounding down.
    """
    size = images.shape[axis]
    whole = jnp.floor(shift)
    part = (shift - whole)[..., None]
    most = math.ceil(bound)
    steps = jnp.clip(whole.astype(jnp.int32) + most, 0, 2 * most)[..., None]
    bits = (2 * most).bit_length()
    padding = [(0, 0)] * 4
    padding[axis] = (most, 2**bits - most)
    images = jnp.pad(images, padding)

    def cut(start: int, length: int) -> jax.Array:
        return jax.lax.slice_in_dim(images, start, start + length, axis=axis)

    for bit in reversed(range(bits)):
        left = size + 2**bit  # what smaller steps can still reach
        images = jnp.where(steps & 2**bit, cut(2**bit, left), cut(0, left))
    near, far = cut(0, size).astype(jnp.float32), cut(1, size).astype(jnp.float32)
    between = near + part * (far - near) + rounding[:, None, None, None]
    return between.astype(jnp.uint8)


def _inside(how: Warp, height: int, width: int) -> jax.Array:
    """Whether the place that each pixel is taken from lies in the image, `[N, H, W]`."""
    x, y = jnp.arange(width) + 0.5, jnp.arange(height)[:, None] + 0.5
    cos, sin = (_grid(f(-jnp.deg2rad(how.rotate))) for f in (jnp.cos, jnp.sin))
    right, down = x - width / 2, y - height / 2
    from_x = cos * right + sin * down + width / 2
    from_y = -sin * right + cos * down + height / 2
    from_x += _grid(how.shear_x) * y + _grid(how.translate_x)
    from_y += _grid(how.shear_y) * x + _grid(how.translate_y)
    return (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)


def _grid(values: jax.Array) -> jax.Array:
    return values[:, None, None]
