"""Whether a converted network computes what the Flax network computes, layer by layer."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from pnet_jax.convert.source import Preprocessing, Source
from pnet_jax.errors import UserError

LOGITS = "logits"
# Of the logits, in their standard deviations: the largest difference with the same weights, and the
# root of the mean square with rounded ones, whose differences are noise.
EXACT = 1e-4
ROUNDED = 1e-2
NUM_IMAGES = 3
_LAYER_FACTOR = 10
# A layer that gives the same everywhere has no deviation to compare with.
_LEAST_STD = 1e-6


@dataclasses.dataclass(frozen=True)
class Difference:
    """Of one layer: the largest of all images, in standard deviations of the layer's own values
    for that image.
    """

    layer: str
    value: float


def sample_images(image_size: int) -> np.ndarray:
    """`[NUM_IMAGES, S, S, 3]` uint8: different images with the spectrum of photographs.

    One image would not show that a file froze what it should compute for each. Noise without
    structure would be far from what networks were trained on, where rounding grows from layer to
    layer.
    """
    rng = np.random.default_rng(0)
    images = np.zeros((NUM_IMAGES, image_size, image_size, 3))
    side = 1
    while side <= image_size:  # the same energy at each scale, from one patch to single pixels
        patch = -(-image_size // side)
        noise = rng.normal(size=(NUM_IMAGES, side, side, 3))
        noise = noise.repeat(patch, axis=1).repeat(patch, axis=2)
        images += noise[:, :image_size, :image_size]
        side *= 2
    images /= images.std(axis=(1, 2, 3), keepdims=True)
    return np.clip(118 + 56 * images, 0, 255).astype(np.uint8)


def normalized(images: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """`[N, S, S, 3]` uint8 to the float32 that the network takes."""
    mean, std = (np.array(v, np.float32) for v in (preprocessing.mean, preprocessing.std))
    return (images.astype(np.float32) - mean) / std


def reference(source: Source, images: np.ndarray, layers: Iterable[str]) -> dict[str, np.ndarray]:
    """What the Flax network gives for normalised images `[N, S, S, 3]`, in its order of layers.

    `layers` are the paths of modules, such as `blocks_0_0/ghost1`; the logits come last.
    """
    wanted = {tuple(layer.split("/")) for layer in layers}

    def apply(variables: Any, images: jax.Array) -> Any:
        return source.network.apply(
            variables,
            images,
            capture_intermediates=lambda module, method: (
                method == "__call__" and module.path in wanted
            ),
            mutable=["intermediates"],
            temperature=source.temperature,
        )

    # It runs once: time spent on optimising its machine code would be lost.
    quickly = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    # Accelerators would round the factors of products otherwise.
    with jax.default_matmul_precision("highest"):
        compiled = jax.jit(apply, compiler_options=quickly)
        logits, state = jax.device_get(compiled(source.variables, images))
    given = {
        "/".join(path[:-1]): value[0]
        for path, value in traverse_util.flatten_dict(state.get("intermediates", {})).items()
    }
    return {layer: given[layer] for layer in layers} | {LOGITS: logits}


def differences(
    expected: Mapping[str, np.ndarray], actual: Mapping[str, np.ndarray]
) -> list[Difference]:
    """Of each layer in the order of `expected`; anything but a number is infinitely different."""
    found = []
    for layer, arrays in expected.items():
        values = [
            np.abs(np.float64(theirs) - ours).max()
            / max(float(np.std(theirs, dtype=np.float64)), _LEAST_STD)
            for theirs, ours in zip(arrays, actual[layer], strict=True)
        ]
        worst = np.nan_to_num(np.array(values), nan=np.inf).max()
        found.append(Difference(layer, float(worst)))
    return found


def report(found: Sequence[Difference]) -> dict[str, Any]:
    """For `conversion.json`: what was compared, and how it came out."""
    worst = max(found, key=lambda layer: layer.value)
    return {
        "images": NUM_IMAGES,
        "layers": len(found),
        "logits_difference_in_std": found[-1].value,
        "largest_difference_in_std": {worst.layer: worst.value},
    }


def require_equal(found: Sequence[Difference], tolerance: float, what: str) -> None:
    """Raises UserError if the logits, the last of `found`, differ by more than `tolerance`.

    The sentence names the first layer that differs; all after it may only have inherited that.
    Within layers rounding alone may reach a multiple of what is left of it in the logits.
    """
    logits = found[-1]
    if logits.value <= tolerance:
        return
    first = next((d for d in found if d.value > _LAYER_FACTOR * tolerance), logits)
    raise UserError(
        f"{what} differs from the Flax network, first in {first.layer}: by {first.value:.1e} "
        f"standard deviations, and in the logits by {logits.value:.1e}, where {tolerance:.0e} are "
        f"allowed; nothing was written."
    )


def require_close(expected: np.ndarray, actual: np.ndarray, what: str) -> None:
    """Raises UserError if rounded weights move the logits by more than `ROUNDED`."""
    moved = np.sqrt(np.square(np.float64(actual) - expected).mean()) / np.std(expected)
    if not moved <= ROUNDED:
        raise UserError(
            f"{what} moves the logits by {moved:.1e} of their standard deviation (root mean "
            f"square), where {ROUNDED:.0e} is allowed; nothing was written."
        )
