"""RandAugment (Cubuk et al. 2019, arXiv 1909.13719) as timm's strings name it."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from pnet_jax.augment import enhance, histogram, levels
from pnet_jax.augment.some import on_some
from pnet_jax.augment.warp import Warp, warp

OPERATIONS = (
    *("autocontrast", "equalize"),
    *("invert", "posterize", "solarize", "solarize_add"),
    *("color", "contrast", "brightness", "sharpness"),
    *("rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
)
_TABLES = ("autocontrast", "equalize")
# Warps at full range, either way: degrees, pixels per pixel, and parts of the image's size.
_RANGES = {
    "rotate": 30.0,
    "shear_x": 0.3,
    "shear_y": 0.3,
    "translate_x": 0.45,
    "translate_y": 0.45,
}
# Magnitudes are in tenths of an operation's range.
_FULL = 10.0


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """`num_layers` times, an operation drawn for each image and applied with probability `prob`.

    Its magnitude is drawn from a normal distribution about `magnitude`, or, if `magnitude_std` is
    infinite, evenly from 0 to `magnitude`; then it is clipped to 0 ... `magnitude_max`.
    """

    magnitude: int = 10
    magnitude_std: float = 0.0
    magnitude_max: int = 10
    num_layers: int = 2
    prob: float = 0.5
    # Whether posterize, solarize and the enhancements grow stronger with the magnitude.
    increasing: bool = False

    @classmethod
    def parse(cls, text: str) -> "RandAugment":
        """Reads `rand-m9-mstd0.5-inc1`.

        The parts, in any order: `m` magnitude, `n` number of layers, `p` probability, `mstd`
        standard deviation of the magnitude (above 100: evenly from 0 to it), `mmax` its upper
        bound, `inc` 1 for operations that grow stronger with it.

        Raises:
          ValueError: in one sentence, if it cannot be read.
        """
        first, *parts = text.split("-")
        found: dict[str, float] = {}
        for part in parts:
            match = re.fullmatch(r"(mstd|mmax|inc|m|n|p)([0-9]+(?:\.[0-9]+)?|inf)", part)
            if match is None or (match[1] in ("mmax", "inc", "m", "n") and not match[2].isdigit()):
                raise ValueError(
                    f"{part!r} of {text!r} cannot be read; the parts are m, n, mmax and inc with a "
                    f"whole number, and mstd and p with any, as in 'rand-m9-mstd0.5-inc1'."
                )
            found[match[1]] = float(match[2])
        if first != "rand":
            raise ValueError(f"{text!r} is no RandAugment; write it as 'rand-m9-mstd0.5-inc1'.")
        read = cls(
            magnitude=int(found.get("m", cls.magnitude)),
            magnitude_std=found.get("mstd", cls.magnitude_std),
            magnitude_max=int(found.get("mmax", cls.magnitude_max)) or cls.magnitude_max,
            num_layers=int(found.get("n", cls.num_layers)),
            prob=found.get("p", cls.prob),
            increasing=bool(found.get("inc", cls.increasing)),
        )
        if read.magnitude_std > 100:
            read = dataclasses.replace(read, magnitude_std=math.inf)
        if read.prob > 1 or read.magnitude_max > 50:
            raise ValueError(f"{text!r} goes too far: p is at most 1 and mmax at most 50.")
        return read


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Choice:
    """What one layer does to each image; fields are `[N]`."""

    # A place in OPERATIONS, int32; -1 does nothing.
    operation: jax.Array
    # float32, in 0 ... magnitude_max; 10 is the full range.
    magnitude: jax.Array
    # float32, 1 or -1, of operations that go both ways.
    sign: jax.Array


def draw(how: RandAugment, count: int, key: jax.Array) -> Choice:
    """One layer's choices for `count` images."""
    which_key, apply_key, magnitude_key, sign_key = jax.random.split(key, 4)
    operation = jax.random.randint(which_key, (count,), 0, len(OPERATIONS))
    if how.magnitude_std == math.inf:
        magnitude = how.magnitude * jax.random.uniform(magnitude_key, (count,))
    else:
        noise = jax.random.normal(magnitude_key, (count,))
        magnitude = how.magnitude + how.magnitude_std * noise
    return Choice(
        operation=jnp.where(jax.random.bernoulli(apply_key, how.prob, (count,)), operation, -1),
        magnitude=jnp.clip(magnitude, 0, how.magnitude_max),
        sign=jax.random.rademacher(sign_key, (count,), jnp.float32),
    )


def rand_augment(
    images: jax.Array, how: RandAugment, key: jax.Array, *, fill: tuple[int, int, int]
) -> jax.Array:
    """Augments `[N, H, W, 3]` uint8 RGB; what a warp takes from outside an image is `fill`.

    Image i of the same batch is treated alike on any number of devices. On the mesh set by
    `jax.sharding.use_abstract_mesh`, each device works on its own images.
    """
    count = images.shape[0]
    choices = [draw(how, count, each) for each in jax.random.split(key, how.num_layers)]

    def layers(images: jax.Array, choices: list[Choice]) -> jax.Array:
        for choice in choices:
            images = apply(images, choice, how, fill=fill)
        return images

    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or count % mesh.size:
        return layers(images, choices)
    by_image = PartitionSpec(mesh.axis_names)
    return jax.shard_map(
        layers, mesh=mesh, in_specs=(by_image, by_image), out_specs=by_image, check_vma=False
    )(images, choices)


def apply(
    images: jax.Array, choice: Choice, how: RandAugment, *, fill: tuple[int, int, int]
) -> jax.Array:
    """Does to each of `[N, H, W, 3]` uint8 what was chosen for it.

    Arithmetic is done on all images, with parameters that change nothing where it was not chosen;
    tables and warps are dear, and done on the images that want them.
    """
    count, height, width, _ = images.shape
    images = _recoloured(images, choice, how)
    # Groups well above the expected number: with 128 images, one step in 17 has another round.
    expected = count * how.prob / len(OPERATIONS)
    images = on_some(
        lambda images, equalize: histogram.apply_tables(images, _tables(images, equalize)),
        images,
        _is(choice, "equalize"),
        _is(choice, *_TABLES),
        at_once=math.ceil(1.75 * len(_TABLES) * expected),
    )
    reach = how.magnitude_max / _FULL
    far = _RANGES["translate_x"] * reach * max(height, width)
    return on_some(
        lambda images, how: warp(
            images, how, fill, max_degrees=_RANGES["rotate"] * reach, max_pixels=far
        ),
        images,
        _warp(choice, height, width),
        _is(choice, *_RANGES),
        at_once=math.ceil(1.4 * len(_RANGES) * expected),
    )


def _recoloured(images: jax.Array, choice: Choice, how: RandAugment) -> jax.Array:
    """Operations on the levels of each pixel, and enhancements."""
    share = choice.magnitude / _FULL
    kept = _whole(choice, 4)
    threshold = jnp.minimum(_whole(choice, 256), 256)
    factor = 0.1 + 1.8 * share
    if how.increasing:
        kept, threshold = 4 - kept, 256 - threshold
        factor = jnp.maximum(1 + 0.9 * share * choice.sign, 0.1)
    threshold = jnp.where(_is(choice, "invert"), 0, threshold)
    images = levels.posterize(images, jnp.where(_is(choice, "posterize"), kept, 8))
    images = levels.solarize(images, jnp.where(_is(choice, "solarize", "invert"), threshold, 256))
    added = jnp.minimum(_whole(choice, 110), 128)
    images = levels.solarize_add(images, jnp.where(_is(choice, "solarize_add"), added, 0))
    base = jnp.select(
        [_is(choice, name)[:, None, None, None] for name in ("color", "contrast", "sharpness")],
        [enhance.grayscale(images), enhance.mean_gray(images), enhance.smooth(images)],
        jnp.uint8(0),
    )
    enhanced = _is(choice, "color", "contrast", "brightness", "sharpness")
    return enhance.blend(base, images, jnp.where(enhanced, factor, 1.0))


def _tables(images: jax.Array, equalize: jax.Array) -> jax.Array:
    counts = histogram.histograms(images)
    return jnp.where(
        equalize[:, None, None],
        histogram.equalize_tables(counts),
        histogram.autocontrast_tables(counts),
    )


def _warp(choice: Choice, height: int, width: int) -> Warp:
    signed = choice.sign * choice.magnitude / _FULL
    sizes = {"translate_x": width, "translate_y": height}
    return Warp(
        **{
            name: jnp.where(_is(choice, name), signed * most * sizes.get(name, 1), 0.0)
            for name, most in _RANGES.items()
        }
    )


def _whole(choice: Choice, most: int) -> jax.Array:
    """The magnitude in whole steps of which the full range has `most`."""
    return (choice.magnitude * most / _FULL).astype(jnp.int32)


def _is(choice: Choice, *names: str) -> jax.Array:
    chosen = [choice.operation == OPERATIONS.index(name) for name in names]
    return jnp.stack(chosen).any(axis=0)
