"""All that happens to a training batch on the device, in order."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pnet_jax.augment.erasing import random_erasing
from pnet_jax.augment.flip import random_flip
from pnet_jax.augment.mixing import Mixing, mix
from pnet_jax.augment.normalize import NORMALIZATIONS, normalize
from pnet_jax.augment.rand_augment import RandAugment, rand_augment


class Augmented(NamedTuple):
    """A batch ready for the network."""

    # `[N, H, W, 3]` normalised floats.
    images: jax.Array
    # `[N]` float32, what image i has of itself, the rest being of image N - 1 - i; None: all.
    share: jax.Array | None


@dataclasses.dataclass(frozen=True)
class Policy:
    """Which augmentations a run has; None and 0 are off."""

    random_flip: bool = True
    rand_augment: RandAugment | None = None
    normalization: str = "imagenet"
    random_erasing: float = 0.0
    erasing_mode: str = "pixel"
    mixing: Mixing | None = None

    def __call__(
        self, images: jax.Array, key: jax.Array, dtype: jax.typing.DTypeLike = jnp.float32
    ) -> Augmented:
        """Augments `[N, H, W, 3]` uint8 RGB; what is drawn depends on the key and the place only.

        Flips and RandAugment work on bytes, as Pillow's operations do; erasing and mixing on
        normalised floats, where erasing's noise has unit variance and a mean is not rounded.
        """
        augment_key, erase_key, mix_key = (jax.random.fold_in(key, i) for i in range(1, 4))
        if self.random_flip:
            images = random_flip(images, key)
        if self.rand_augment is not None:
            mean, _ = NORMALIZATIONS[self.normalization]
            fill = (round(mean[0]), round(mean[1]), round(mean[2]))
            images = rand_augment(images, self.rand_augment, augment_key, fill=fill)
        images = normalize(images, dtype, self.normalization)
        share = None
        if self.random_erasing:
            images = random_erasing(images, self.random_erasing, self.erasing_mode, erase_key)
        if self.mixing is not None:
            # Half of the mirrored images come from other chips, narrow if `dtype` is.
            images, share = mix(images, self.mixing, mix_key)
        return Augmented(images, share)
