"""Routers against their formulas, and the dynamic layer against a convolution for each sample."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pnet_jax.models.dynamic import ROUTINGS, DynamicConv, Router
from pnet_jax.models.layers import Conv

# Each program here runs once: time spent on optimising its machine code would be lost.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def random_variables(rng, module, x):
    """Normals throughout: biases that are not zero, and logits of a size that matters."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("temperature", [1.0, 7.5])
def test_router_formulas(rng, routing, temperature):
    x = jnp.float32(rng.normal(size=(5, 3, 4, 12)))
    router = Router(num_experts=4, routing=routing)
    variables = random_variables(rng, router, x)
    layers = jax.tree.map(np.float64, variables["params"])
    value = np.float64(x).mean(axis=(1, 2))
    if routing == "softmax_mlp":
        assert layers["hidden"]["kernel"].shape == (12, 3)
        value = np.maximum(value @ layers["hidden"]["kernel"] + layers["hidden"]["bias"], 0)
    value = value @ layers["out"]["kernel"] + layers["out"]["bias"]
    expected = (
        1 / (1 + np.exp(-value)) if routing == "sigmoid_linear" else softmax(value / temperature)
    )
    apply = jit(router.apply)
    coefficients = apply(variables, x, temperature)
    np.testing.assert_allclose(coefficients, expected, rtol=1e-5, atol=1e-6)
    if routing != "sigmoid_linear":
        np.testing.assert_allclose(coefficients.sum(axis=-1), 1, rtol=1e-6)
        np.testing.assert_allclose(apply(variables, x, 1e6), 0.25, rtol=1e-4)
    assert np.ptp(expected, axis=0).min() > 1e-3  # the samples do differ


@pytest.mark.parametrize(("ratio", "hidden"), [(0.25, 3), (1.0, 12), (0.5, 6), (0.01, 1)])
def test_hidden_width_of_the_mlp_router(key, ratio, hidden):
    router = Router(num_experts=4, routing_ratio=ratio)
    variables = jax.eval_shape(router.init, key, jnp.zeros((1, 2, 2, 12)))
    shapes = {name: layer["kernel"].shape for name, layer in variables["params"].items()}
    assert shapes == {"hidden": (12, hidden), "out": (hidden, 4)}


def test_router_computes_in_float32(rng):
    """A mean over bfloat16 pixels is not rounded to bfloat16 (op by op: `jit` may not round)."""
    x = jnp.bfloat16(1 + rng.normal(size=(2, 64, 64, 8)))
    router = Router(num_experts=4, routing="softmax_linear")
    variables = random_variables(rng, router, x)
    coefficients = router.apply(variables, x)
    assert coefficients.dtype == jnp.float32
    np.testing.assert_allclose(coefficients, router.apply(variables, jnp.float32(x)), rtol=1e-5)


def test_unknown_routing(key):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole sentence is compared
        Router(num_experts=4, routing="softmax").init(key, jnp.zeros((1, 2, 2, 3)))
    assert str(error.value) == (
        "There is no routing 'softmax'; choose one of softmax_mlp, softmax_linear, sigmoid_linear."
    )


def test_a_new_temperature_does_not_recompile(rng):
    x = jnp.float32(rng.normal(size=(2, 4, 4, 6)))
    layer = DynamicConv(features=4)
    variables = random_variables(rng, layer, x)
    apply = jit(layer.apply)
    outputs = [apply(variables, x, jnp.float32(t)) for t in (30.0, 10.0, 1.0)]
    assert apply._cache_size() == 1
    assert np.abs(outputs[0] - outputs[2]).max() > 1e-3


@pytest.mark.parametrize(
    "fields",
    [
        {"features": 8},
        {"features": 6, "kernel_size": 5, "strides": 2, "groups": 6},
        {"features": 8, "kernel_size": 3, "strides": 2},
        {"features": 8, "kernel_size": 3, "strides": 2, "padding": "same"},
        {"features": 6, "kernel_size": 3, "strides": 2, "groups": 6, "padding": "same"},
    ],
)
def test_dynamic_conv_is_a_static_one_for_each_sample(rng, fields):
    """With the routed kernel of each sample put into `Conv`, padding included."""
    x = jnp.float32(rng.normal(size=(3, 8, 7, 6)))
    layer, static = DynamicConv(**fields), Conv(**fields)
    variables = random_variables(rng, layer, x)

    @jit
    def both(variables, x):
        params = variables["params"]
        coefficients = Router(num_experts=4).apply({"params": params["routing"]}, x, 2.0)
        kernels = jnp.einsum("nk,khwio->nhwio", coefficients, params["experts"])
        apply = lambda kernel, image: static.apply({"params": {"kernel": kernel}}, image[None])[0]  # noqa: E731
        return layer.apply(variables, x, 2.0), [
            apply(k, i) for k, i in zip(kernels, x, strict=True)
        ]

    y, expected = both(variables, x)
    np.testing.assert_allclose(y, np.stack(expected), rtol=1e-4, atol=1e-4)


def test_bfloat16_keeps_parameters_in_float32(rng):
    x = jnp.float32(rng.normal(size=(2, 4, 4, 6)))
    layer = DynamicConv(features=8, dtype=jnp.bfloat16)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    variables = random_variables(rng, layer, x)
    y = jit(layer.apply)(variables, x)
    assert y.dtype == jnp.bfloat16
    exact = np.asarray(jit(DynamicConv(features=8).apply)(variables, x))
    np.testing.assert_allclose(np.float32(y), exact, atol=0.03 * np.abs(exact).max())


@pytest.mark.parametrize("routing", ["softmax_linear", "sigmoid_linear"])
@pytest.mark.parametrize(
    ("num_experts", "features", "kernel_size", "groups", "fan_out"),
    [(1, 64, 3, 1, 576), (4, 64, 3, 1, 576), (8, 64, 3, 1, 576), (4, 4096, 3, 4096, 9)],
)
def test_the_evenly_mixed_kernel_has_the_variance_of_a_static_one(
    key, routing, num_experts, features, kernel_size, groups, fan_out
):
    """2 / fan-out (arXiv 1502.01852), however many experts there are and however they are mixed.

    The router of an input of zeros says 1 / K (softmax) or 1 / 2 (sigmoid).
    """
    channels = groups if groups > 1 else 64
    layer = DynamicConv(
        features, kernel_size, groups=groups, num_experts=num_experts, routing=routing
    )
    x = jnp.zeros((1, 1, 1, channels))

    @jit
    def init(key):
        params = layer.init(key, x)["params"]
        router = Router(num_experts, routing)
        return params["experts"], router.apply({"params": params["routing"]}, x)[0]

    experts, coefficients = init(key)
    np.testing.assert_allclose(
        coefficients, 1 / num_experts if routing == "softmax_linear" else 0.5
    )
    kernel = np.einsum("k,khwio->hwio", np.float64(coefficients), np.float64(experts))
    five_standard_errors = 5 * math.sqrt(2 / kernel.size)
    assert five_standard_errors < 0.04
    assert kernel.var() == pytest.approx(2 / fan_out, rel=five_standard_errors)


def test_routers_of_one_map_share_its_mean():
    """XLA computes once what both want: the sum over the pixels stands once in the program."""

    class Two(nn.Module):
        @nn.compact
        def __call__(self, x):
            return DynamicConv(3, name="a")(x) + DynamicConv(3, name="b")(x)

    x = jnp.ones((2, 8, 8, 5))
    variables = Two().init(jax.random.key(0), x)
    hlo = jax.jit(Two().apply).lower(variables, x).compile().as_text()
    assert len(re.findall(r"= f32\[2,5\]\S* reduce\(", hlo)) == 1
