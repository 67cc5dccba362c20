"""The whole of it, in order; the same on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pnet_jax.augment.erasing import random_erasing
from pnet_jax.augment.flip import random_flip
from pnet_jax.augment.mixing import Mixing, mix
from pnet_jax.augment.normalize import normalize
from pnet_jax.augment.policy import Policy
from pnet_jax.augment.rand_augment import RandAugment

RAND = RandAugment.parse("rand-m9-mstd0.5-inc1")
ALL = Policy(
    rand_augment=RandAugment(num_layers=1, prob=1.0),
    random_erasing=0.5,
    mixing=Mixing(0.2, 1.0, mode="elem"),
)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (16, 16, 16, 3), np.uint8)


def test_the_default_flips_and_normalises(images, key):
    augmented = Policy()(images, key, jnp.bfloat16)
    expected = normalize(random_flip(images, key), jnp.bfloat16)
    np.testing.assert_array_equal(augmented.images, expected)
    assert augmented.share is None
    plain = Policy(random_flip=False, normalization="inception")(images, key)
    np.testing.assert_array_equal(plain.images, normalize(images, normalization="inception"))


def test_erasing_comes_before_mixing(images, key):
    how = Mixing(mixup_alpha=1.0)
    policy = Policy(random_flip=False, random_erasing=1.0, erasing_mode="const", mixing=how)
    augmented = policy(images, key)
    erased = random_erasing(normalize(images), 1.0, "const", jax.random.fold_in(key, 2))
    expected, share = mix(erased, how, jax.random.fold_in(key, 3))
    np.testing.assert_array_equal(augmented.images, expected)
    np.testing.assert_array_equal(augmented.share, share)


def test_what_comes_from_outside_is_the_mean(key):
    """White pictures, warped: the fill is about zero once it is normalised."""
    white = np.full((64, 16, 16, 3), 255, np.uint8)
    images = np.asarray(Policy(random_flip=False, rand_augment=RAND)(white, key).images)
    filled = np.abs(images).max(-1) < 0.02
    assert filled.any()
    assert filled.mean() < 0.2


def test_the_same_on_one_device_and_on_eight(images, key):
    """To the bit, but for the last bits of floats; and no two steps are alike."""
    run = jax.jit(lambda images, key: ALL(images, key))
    alone = run(images, key)
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    split = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))

    @jax.jit
    def on_mesh(images, key):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return ALL(images, key)

    sharded = on_mesh(
        jax.device_put(images, split), jax.device_put(key, NamedSharding(mesh, PartitionSpec()))
    )
    assert len(sharded.images.sharding.device_set) == 8
    np.testing.assert_allclose(sharded.images, alone.images, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(sharded.share, alone.share)
    assert (run(images, jax.random.key(1)).images != alone.images).any()
