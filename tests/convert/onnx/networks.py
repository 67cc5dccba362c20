"""Small networks with all that the large ones have, and statistics under which signals stay put."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from pnet_jax.augment.normalize import MEAN, STD
from pnet_jax.convert.source import Preprocessing, Source
from pnet_jax.models.ghostnet import GhostNet, Row

# A stride, a 5 x 5 kernel, squeeze-and-excite, an identity shortcut, and (16, 24 and 40 times 0.6
# halved) numbers of channels that are no multiples of 4. Filled up to multiples of 8, 40 and 44
# times 0.6 are the same number.
STAGES = (
    (Row(3, 16, 16, 0, 1),),
    (Row(3, 48, 24, 0.25, 2),),
    (Row(5, 72, 40, 0.25, 2), Row(5, 96, 44, 0, 1)),
)
SIZE = 32


def ghostnet(**fields):
    return GhostNet(num_classes=5, stages=STAGES, width=0.6, **fields)


def source_of(network, name="parameternet_300m", size=SIZE, temperature=1.0):
    """A checkpoint of a network, without any files."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    rng = np.random.default_rng(0)

    def leaf(path, shape):
        kind = path[-1].key
        if kind in ("scale", "var"):
            return rng.uniform(0.5, 1.5, shape.shape).astype(np.float32)
        # The inputs of a kernel; of experts, half of which remain after mixing, too.
        inputs = np.prod(shape.shape[-4:-1]) if len(shape.shape) > 2 else shape.shape[0]
        spread = 1.0 / np.sqrt(inputs) if kind in ("kernel", "experts") else 0.3
        return (spread * rng.normal(size=shape.shape)).astype(np.float32)

    source = Source(
        workdir=pathlib.Path("run"),
        model=name,
        fields={},
        step=7,
        weights="ema",
        variables={"batch_stats": {}} | jax.tree_util.tree_map_with_path(leaf, shapes),
        fingerprint="0" * 12,
        classes=[f"class {number}" for number in range(5)],
        preprocessing=Preprocessing(size, 0.875, MEAN, STD),
        temperature=temperature,
    )
    vars(source)["network"] = network
    return source
