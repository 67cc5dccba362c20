"""Every form of the dynamic convolution is the reference form, in values and in all gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pnet_jax.ops.dynamic_conv import FORMS, dynamic_conv, mix_kernels

# Each program here runs once: time spent on optimising its machine code would be lost.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SAMPLES, HEIGHT, WIDTH, EXPERTS = 3, 7, 6, 4

# (kernel size, strides, padding, input channels, groups, features), and the forms that can do it.
LAYERS = {
    "pointwise": ((1, 1, 0, 6, 1, 8), ("auto", "lanes", "matmul", "experts", "patches")),
    "pointwise, strided and padded": ((1, 2, 1, 6, 1, 8), ("auto", "matmul", "experts", "patches")),
    "depthwise 3x3": ((3, 1, 1, 6, 6, 6), ("auto", "shift", "experts")),
    "depthwise 5x5, strided": ((5, 2, 2, 6, 6, 6), ("shift", "experts")),
    "stem 3x3, strided": ((3, 2, 1, 3, 1, 8), ("auto", "patches", "experts")),
    "full 3x3, strided, one side": ((3, 2, ((0, 1), (1, 1)), 9, 1, 4), ("auto", "experts")),
    "depthwise 3x3, one side": ((3, 2, ((0, 1), (1, 0)), 6, 6, 6), ("auto", "shift", "experts")),
    "stem 3x3, one side": ((3, 2, ((1, 0), (0, 1)), 3, 1, 8), ("auto", "patches")),
    "full 5x5": ((5, 1, 2, 9, 1, 4), ("auto", "patches", "experts")),
    "grouped 3x3, strided": ((3, 2, 1, 6, 2, 8), ("auto", "experts")),
}


def draw(rng, layer, samples=SAMPLES):
    kernel_size, _, _, channels, groups, features = layer
    x = rng.normal(size=(samples, HEIGHT, WIDTH, channels))
    coefficients = rng.uniform(size=(samples, EXPERTS))
    shape = (EXPERTS, kernel_size, kernel_size, channels // groups, features)
    return jnp.float32(x), jnp.float32(coefficients), jnp.float32(rng.normal(size=shape))


def convolve(layer, form, *operands):
    _, strides, padding, _, groups, _ = layer
    return dynamic_conv(*operands, strides=strides, padding=padding, groups=groups, form=form)


def value_and_gradients(layer, form, *operands):
    """The output, and the gradients of a sum that weighs its entries differently."""
    y, pull_back = jax.vjp(lambda *operands: convolve(layer, form, *operands), *operands)
    return y, *pull_back(jnp.cos(jnp.arange(y.size)).reshape(y.shape).astype(y.dtype))


def assert_close(actual, expected, tolerance):
    """Equal to `tolerance` of the largest entry."""
    expected = np.asarray(expected, np.float32)
    error = np.abs(np.asarray(actual, np.float32) - expected).max()
    largest = np.abs(expected).max()
    assert error <= tolerance * largest, (error, largest)


@pytest.mark.parametrize("name", LAYERS)
def test_forms_equal_the_reference(rng, name):
    """Float32 closely, bfloat16 to its eight bits; each result has the dtype of its operand."""
    layer, forms = LAYERS[name]
    operands = draw(rng, layer)

    @jit
    def compute(x, coefficients, experts):
        narrow = jax.tree.map(jnp.bfloat16, (x, coefficients, experts))
        reference = value_and_gradients(layer, "grouped", x, coefficients, experts)
        exact = [value_and_gradients(layer, form, x, coefficients, experts) for form in forms]
        return reference, exact, [convolve(layer, form, *narrow) for form in forms]

    reference, exact, narrow = compute(*operands)
    assert len(exact) == len(forms)
    for results in exact:
        for result, expected in zip(results, reference, strict=True):
            assert result.dtype == jnp.float32
            assert_close(result, expected, 2e-6)
    for result in narrow:
        assert result.dtype == jnp.bfloat16
        assert_close(result, reference[0], 0.03)


@pytest.mark.parametrize("name", ["pointwise", "depthwise 3x3", "stem 3x3, strided"])
def test_gradients_in_bfloat16(rng, name):
    """Computed in bfloat16 on float32 parameters, the gradients arrive in float32."""
    layer, _ = LAYERS[name]
    x, coefficients, experts = draw(rng, layer)

    def value_and_parameter_gradients(form, dtype):
        y, pull_back = jax.vjp(
            lambda c, e: convolve(layer, form, x.astype(dtype), c, e), coefficients, experts
        )
        return y, pull_back(jnp.ones_like(y))

    @jit
    def both():
        return (
            value_and_parameter_gradients("auto", jnp.bfloat16),
            value_and_parameter_gradients("grouped", jnp.float32),
        )

    (y, gradients), (_, expected) = both()
    assert y.dtype == jnp.bfloat16
    for gradient, exact in zip(gradients, expected, strict=True):
        assert gradient.dtype == jnp.float32
        assert_close(gradient, exact, 0.03)


@pytest.mark.parametrize("name", ["pointwise", "depthwise 3x3", "stem 3x3, strided"])
def test_under_vmap_and_remat(rng, name):
    """`vmap` over a stack of inputs, of coefficients and of experts; rematerialisation."""
    layer, _ = LAYERS[name]
    stack = [draw(rng, layer) for _ in range(2)]

    @jit
    def compute(stacked):
        mapped = jax.vmap(lambda operands: value_and_gradients(layer, "auto", *operands))(stacked)
        operands = jax.tree.map(lambda leaf: leaf[1], stacked)
        rerun = jax.checkpoint(lambda *operands: convolve(layer, "auto", *operands))
        y, pull_back = jax.vjp(lambda *operands: rerun(*operands), *operands)
        remat = y, *pull_back(jnp.cos(jnp.arange(y.size)).reshape(y.shape))
        return value_and_gradients(layer, "grouped", *operands), mapped, remat

    reference, mapped, remat = compute(jax.tree.map(lambda *leaves: jnp.stack(leaves), *stack))
    for expected, of_both, rerun in zip(reference, mapped, remat, strict=True):
        assert_close(of_both[1], expected, 2e-6)
        assert_close(rerun, expected, 2e-6)


def test_one_hot_coefficients_pick_an_expert(rng):
    x, _, experts = draw(rng, (1, 1, 0, 6, 1, 8))
    y = dynamic_conv(x, jax.nn.one_hot(jnp.array([2, 0, 3]), EXPERTS), experts)
    expected = [x[n] @ experts[k, 0, 0] for n, k in enumerate((2, 0, 3))]
    np.testing.assert_allclose(y, np.stack(expected), rtol=1e-5, atol=1e-6)


def test_mix_kernels(rng):
    _, coefficients, experts = draw(rng, (3, 1, 1, 4, 2, 6))
    np.testing.assert_allclose(
        mix_kernels(coefficients, experts),
        np.einsum("nk,khwio->nhwio", coefficients, experts),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("form", "layer", "sentence"),
    [
        (
            "matmul",
            (3, 1, 1, 6, 1, 8),
            "The form 'matmul' cannot compute a 3x3 convolution of 6 to 8 channels in 1 groups; "
            "'auto' picks one that can.",
        ),
        (
            "shift",
            (3, 1, 1, 6, 2, 6),
            "The form 'shift' cannot compute a 3x3 convolution of 6 to 6 channels in 2 groups; "
            "'auto' picks one that can.",
        ),
        (
            "patches",
            (5, 2, 2, 6, 6, 6),
            "The form 'patches' cannot compute a 5x5 convolution of 6 to 6 channels in 6 groups; "
            "'auto' picks one that can.",
        ),
        (
            "fourier",
            (1, 1, 0, 6, 1, 8),
            "There is no form 'fourier'; the forms are auto, grouped, experts, matmul, lanes, "
            "shift, patches.",
        ),
    ],
)
def test_a_form_that_cannot_is_refused(rng, form, layer, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole sentence is compared
        convolve(layer, form, *draw(rng, layer))
    assert str(error.value) == sentence


def test_every_form_is_tested():
    assert set(FORMS) == {"grouped"} | {form for _, forms in LAYERS.values() for form in forms}


@pytest.mark.parametrize("name", ["pointwise", "depthwise 3x3", "stem 3x3, strided", "full 5x5"])
def test_a_sharded_batch_stays_where_it_is(rng, name):
    """XLA may gather a whole batch for a grouped convolution; the forms that `auto` picks avoid it.

    The one communication of a step is the sum of the experts' gradient.
    """
    layer, _ = LAYERS[name]
    operands = draw(rng, layer, samples=16)
    devices = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(devices, PartitionSpec("data"))
    whole = NamedSharding(devices, PartitionSpec())

    def compute(*operands):
        return value_and_gradients(layer, "auto", *operands)

    shardings = (split, split, whole)
    sharded = jit(compute, in_shardings=shardings, out_shardings=(split, *shardings))
    compiled = sharded.lower(*operands).compile()
    hlo = compiled.as_text()
    assert hlo.count(" all-reduce(") == 1
    for operation in ("all-gather", "all-to-all", "collective-permute"):
        assert operation not in hlo
    results = compiled(*jax.device_put(operands, shardings))
    for result, expected in zip(results, jit(compute)(*operands), strict=True):
        assert_close(result, expected, 2e-6)
