"""Parallel branches: how many, of which shapes, and what they add up to."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from pnet_jax.analysis.count import count_parameters
from pnet_jax.models import create_model
from pnet_jax.models.layers import BatchNorm
from pnet_jax.models.reparam import Branches


def branches(features, kernel_size, strides=1, groups=1, count=2):
    batch_norm = lambda name: BatchNorm(name=name)  # noqa: E731 - as Options.batch_norm is called
    return Branches(features, kernel_size, strides, groups, count, batch_norm)


@pytest.mark.parametrize(
    ("inputs", "module", "shapes", "identity"),
    [
        (6, branches(6, 3, groups=6), [(3, 3, 1, 6)] * 2 + [(1, 1, 1, 6)], True),
        (6, branches(6, 5, 2, groups=6), [(5, 5, 1, 6)] * 2 + [(1, 1, 1, 6)], False),
        (6, branches(4, 1), [(1, 1, 6, 4)] * 2, False),
        (6, branches(6, 1), [(1, 1, 6, 6)] * 2, True),
    ],
)
def test_which_branches_there_are(inputs, module, shapes, identity):
    x = jax.ShapeDtypeStruct((1, 8, 8, inputs), jnp.float32)
    init = functools.partial(module.init, train=False)
    params = jax.eval_shape(init, jax.random.key(0), x)["params"]
    kernels = [params[f"conv_{place}"]["kernel"].shape for place in range(len(shapes))]
    assert kernels == shapes
    norms = {f"bn_{place}" for place in range(len(shapes))} | (
        {"bn_identity"} if identity else set()
    )
    assert {name for name in params if name.startswith("bn")} == norms
    assert len(params) == len(shapes) + len(norms)


def test_each_branch_is_normalised_by_itself(rng):
    """The identity alone: one batch norm of the input."""
    x = jnp.float32(rng.normal(3.0, 2.0, size=(8, 4, 4, 6)))
    module = branches(6, 1, count=0)
    variables = module.init(jax.random.key(0), x, train=True)
    y, updates = module.apply(variables, x, train=True, mutable=["batch_stats"])
    expected = (x - x.mean(axis=(0, 1, 2))) / x.std(axis=(0, 1, 2))
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3)
    mean = updates["batch_stats"]["bn_identity"]["mean"]
    np.testing.assert_allclose(mean, 0.1 * x.mean(axis=(0, 1, 2)), rtol=1e-4)


def test_ghostnet_300m_with_branches_by_hand():
    """Beside the 76 convolutions that ParameterNet-300M makes dynamic, and no others."""
    model = create_model("ghostnet_300m_reparam")
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    branched = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    flat = traverse_util.flatten_dict(branched)
    with_branches = {
        (*path[:place], name.removesuffix("_branches"))
        for path in flat
        for place, name in enumerate(path)
        if name.endswith("_branches")
    }
    assert len(with_branches) == 76
    assert not any(conv[-1] in ("conv_dw", "conv_head", "conv_reduce") for conv in with_branches)
    plain = {path: leaf for path, leaf in flat.items() if "_branches" not in ".".join(path)}
    expected = count_parameters(list(plain.values()))
    assert expected == 8_633_106  # of ghostnet_300m
    for conv in with_branches:
        kh, kw, inputs, features = plain[*conv, "kernel"].shape
        expected += 3 * (kh * kw * inputs + 2) * features
        expected += (inputs + 2) * features if kh > 1 else 0
        # The input itself: beside cheap convolutions, the one depthwise shortcut without stride,
        # and 1x1 convolutions to as many channels.
        depthwise = conv[-1] == "cheap_conv" or conv == ("blocks_6_3", "shortcut_dw")
        expected += 2 * features if depthwise or (kh == 1 and inputs == features) else 0
    assert count_parameters(branched) == expected == 15_779_674
