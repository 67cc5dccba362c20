"""The augmentation policy of a configuration."""

from pnet_jax.augment.mixing import Mixing
from pnet_jax.augment.policy import Policy
from pnet_jax.augment.rand_augment import RandAugment
from pnet_jax.config import Config
from pnet_jax.errors import UserError


def policy_of(config: Config) -> Policy:
    """Raises UserError if config.augment.rand_augment cannot be read."""
    augment, rand_augment, mixing = config.augment, None, None
    if augment.rand_augment:
        try:
            rand_augment = RandAugment.parse(augment.rand_augment)
        except ValueError as error:
            raise UserError(f"config.augment.rand_augment: {error}") from error
    if augment.mixup_alpha or augment.cutmix_alpha:
        mixing = Mixing(
            mixup_alpha=augment.mixup_alpha,
            cutmix_alpha=augment.cutmix_alpha,
            prob=augment.mix_prob,
            switch_prob=augment.switch_prob,
            mode=augment.mix_mode,
        )
    return Policy(
        random_flip=config.data.random_flip,
        rand_augment=rand_augment,
        normalization=config.data.normalization,
        random_erasing=augment.random_erasing,
        erasing_mode=augment.erasing_mode,
        mixing=mixing,
    )
