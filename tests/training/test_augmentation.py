"""From a configuration's fields to what happens to its images."""

import dataclasses

import pytest

from pnet_jax.augment import erasing, mixing
from pnet_jax.augment.mixing import Mixing
from pnet_jax.augment.policy import Policy
from pnet_jax.augment.rand_augment import RandAugment
from pnet_jax.config import AugmentConfig, Config, DataConfig
from pnet_jax.errors import UserError
from pnet_jax.training.augmentation import policy_of


def test_nothing_but_a_flip_by_default():
    assert policy_of(Config()) == Policy()
    plain = Config(data=DataConfig(random_flip=False, normalization="inception"))
    assert policy_of(plain) == Policy(random_flip=False, normalization="inception")


def test_every_field_arrives():
    augment = AugmentConfig(
        rand_augment="rand-m7",
        random_erasing=0.3,
        erasing_mode="const",
        mixup_alpha=0.2,
        cutmix_alpha=0.9,
        mix_prob=0.8,
        switch_prob=0.7,
        mix_mode="elem",
    )
    assert policy_of(Config(augment=augment)) == Policy(
        rand_augment=RandAugment(magnitude=7),
        random_erasing=0.3,
        erasing_mode="const",
        mixing=Mixing(0.2, 0.9, 0.8, 0.7, "elem"),
    )
    only_cutmix = policy_of(Config(augment=AugmentConfig(cutmix_alpha=1.0)))
    assert only_cutmix.mixing == Mixing(cutmix_alpha=1.0)


def test_what_cannot_be_read_is_named():
    config = Config(augment=AugmentConfig(rand_augment="rand-9"))
    with pytest.raises(UserError, match=r"config.augment.rand_augment: '9' of 'rand-9' cannot"):
        policy_of(config)


def test_modes_are_those_that_a_configuration_may_name():
    for mode in erasing.MODES:
        Config(augment=AugmentConfig(erasing_mode=mode)).validate()
    for mode in mixing.MODES:
        Config(augment=AugmentConfig(mix_mode=mode)).validate()
    with pytest.raises(UserError, match="erasing_mode is 'rand'; it must be 'pixel' or 'const'"):
        dataclasses.replace(Config(), augment=AugmentConfig(erasing_mode="rand")).validate()
