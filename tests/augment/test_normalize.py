"""Bytes to floats, on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pnet_jax.augment.normalize import MEAN, NORMALIZATIONS, STD, normalize
from pnet_jax.config import Config, DataConfig


def test_constants_are_those_of_imagenet():
    """Channel means .485, .456, .406 and standard deviations .229, .224, .225 of [0, 1]."""
    np.testing.assert_allclose(np.array(MEAN) / 255, [0.485, 0.456, 0.406], rtol=1e-6)
    np.testing.assert_allclose(np.array(STD) / 255, [0.229, 0.224, 0.225], rtol=1e-6)


def test_numbers(rng):
    """Black, white and a grey, and random bytes against float64."""
    images = rng.integers(0, 256, size=(4, 5, 6, 3), dtype=np.uint8)
    images[0, 0, :3] = np.array([0, 255, 124])[:, None]
    normal = normalize(images)
    assert (normal.shape, normal.dtype) == (images.shape, jnp.float32)
    np.testing.assert_allclose(normal[0, 0, 0], [-2.1179, -2.0357, -1.8044], atol=1e-4)
    np.testing.assert_allclose(normal[0, 0, 1], [2.2489, 2.4286, 2.64], atol=1e-4)
    np.testing.assert_allclose(normal[0, 0, 2], [0.0056, 0.1352, 0.3568], atol=1e-4)
    expected = (np.float64(images) - np.float64(MEAN)) / np.float64(STD)
    np.testing.assert_allclose(normal, expected, rtol=1e-5, atol=1e-5)


def test_other_normalizations(rng):
    """The same for all channels: [-1, 1], and EfficientNet-Lite's (x - 127) / 128."""
    images = rng.integers(0, 256, size=(4, 5, 6, 3), dtype=np.uint8)
    by_hand = {
        "inception": np.float64(images) / 127.5 - 1,
        "efficientnet_lite": (np.float64(images) - 127) / 128,
    }
    assert NORMALIZATIONS.keys() == {"imagenet"} | by_hand.keys()
    np.testing.assert_array_equal(normalize(images, normalization="imagenet"), normalize(images))
    for name, expected in by_hand.items():
        np.testing.assert_allclose(normalize(images, normalization=name), expected, atol=1e-6)


def test_normalizations_are_those_that_a_configuration_may_name():
    for name in NORMALIZATIONS:
        Config(data=DataConfig(normalization=name)).validate()


def test_bfloat16_is_rounded_once(rng):
    """From float32: 256 grey levels do not fit the eight bits of bfloat16 before the division."""
    images = rng.integers(0, 256, size=(2, 8, 8, 3), dtype=np.uint8)
    narrow = normalize(images, jnp.bfloat16)
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_array_equal(narrow, normalize(images).astype(jnp.bfloat16))


def test_the_same_on_one_device_and_on_eight(rng):
    images = rng.integers(0, 256, size=(16, 4, 4, 3), dtype=np.uint8)
    devices = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(devices, PartitionSpec("data"))
    sharded = jax.jit(normalize)(jax.device_put(images, split))
    assert len(sharded.sharding.device_set) == 8
    assert sharded.sharding.is_equivalent_to(split, 4)
    np.testing.assert_array_equal(sharded, jax.jit(normalize)(images))
