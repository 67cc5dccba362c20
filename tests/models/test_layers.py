"""Channel rounding, convolutions, batch normalisation, squeeze-and-excite and stochastic depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from pnet_jax.models.layers import BatchNorm, Conv, DropPath, SqueezeExcite, make_divisible


def random_variables(rng, module, x):
    """Normals throughout, so that biases are not zero."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)


@pytest.mark.parametrize(
    ("value", "divisor", "expected"),
    [
        (16, 4, 16),
        (23.2, 4, 24),  # the stem at width 1.45
        (34.8, 4, 36),
        (21, 4, 20),
        (2.4, 4, 4),  # never nothing
        (5.9, 4, 8),  # 4 would lose more than a tenth
        (10, 8, 16),  # 8 would too
        (18, 4, 20),  # halves go up
        (152, 8, 152),
    ],
)
def test_make_divisible(value, divisor, expected):
    assert make_divisible(value, divisor) == expected


def test_make_divisible_without_a_limit():
    """EfficientNetV2 rounds to the nearest: 16 channels at width 1.2 stay 16."""
    assert [make_divisible(19.2, 8), make_divisible(19.2, 8, limit=0.0)] == [24, 16]


@pytest.mark.parametrize(
    ("channels", "fields"),
    [
        (6, {"features": 8, "kernel_size": 3, "strides": 2, "groups": 2}),
        (6, {"features": 6, "kernel_size": 5, "strides": 2, "groups": 6, "use_bias": True}),
    ],
)
def test_conv_is_the_one_of_flax(rng, channels, fields):
    """With the symmetric padding of PyTorch, also where a stride would let SAME pad differently."""
    ours = Conv(**fields)
    size, strides = fields["kernel_size"], fields.get("strides", 1)
    flax = nn.Conv(
        fields["features"],
        (size, size),
        strides,
        padding=(size - 1) // 2,
        feature_group_count=fields.get("groups", 1),
        use_bias=fields.get("use_bias", False),
    )
    x = jnp.float32(rng.normal(size=(2, 8, 6, channels)))
    variables = random_variables(rng, ours, x)
    y, narrow, expected = jax.jit(
        lambda variables, x: (
            ours.apply(variables, x),
            Conv(**fields, dtype=jnp.bfloat16).apply(variables, x),
            flax.apply(variables, x),
        )
    )(variables, x)
    assert y.shape == (2, -(-8 // strides), -(-6 // strides), fields["features"])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(narrow), expected, rtol=0.1, atol=0.2)


@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize(("kernel_size", "strides"), [(3, 2), (5, 2), (3, 1), (1, 2)])
def test_same_padding_is_the_one_of_flax(rng, groups, kernel_size, strides):
    """TensorFlow's SAME, on an even and an odd side; symmetric padding differs by a pixel."""
    fields = {"features": 6, "kernel_size": kernel_size, "strides": strides, "groups": groups}
    ours = Conv(**fields, padding="same")
    flax = nn.Conv(
        6,
        (kernel_size, kernel_size),
        strides,
        padding="SAME",
        feature_group_count=groups,
        use_bias=False,
    )
    x = jnp.float32(rng.normal(size=(2, 8, 7, 6)))
    variables = random_variables(rng, ours, x)

    @jax.jit
    def compute(variables, x):
        layers = (ours, flax, Conv(**fields))
        return [layer.apply(variables, x) for layer in layers]

    y, expected, symmetric = compute(variables, x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    assert y.shape == symmetric.shape
    differs = bool(np.abs(y - symmetric).max() > 1e-3)
    assert differs == (kernel_size > 1 and strides > 1)


def test_unknown_padding(rng, key):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole sentence is compared
        Conv(4, padding="valid").init(key, jnp.zeros((1, 2, 2, 3)))
    assert str(error.value) == "There is no padding 'valid'; choose 'symmetric' or 'same'."


def batch(rng, samples=8):
    return jnp.float32(2 * rng.normal(size=(samples, 3, 5, 4)) + rng.normal(size=4))


def fresh_batch_norm(rng):
    """Parameters and running averages that are not where they start."""
    params = {"scale": rng.uniform(0.5, 2, 4), "bias": rng.normal(size=4)}
    stats = {"mean": rng.normal(size=4), "var": rng.uniform(0.5, 2, 4)}
    return jax.tree.map(jnp.float32, {"params": params, "batch_stats": stats})


def test_batch_norm_is_the_one_of_flax(rng):
    """Values, gradients, running averages in training, and evaluation."""
    x, variables = batch(rng), fresh_batch_norm(rng)
    flax = nn.BatchNorm(momentum=0.9, epsilon=1e-5)

    def train(normalize, variables, x):
        def loss(params, x):
            y, updates = normalize({**variables, "params": params}, x)
            return jnp.sum(jnp.sin(y)), (y, updates["batch_stats"])

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(variables["params"], x)

    @jax.jit
    def both(variables, x):
        mutable = {"mutable": ["batch_stats"]}
        return (
            train(lambda v, x: BatchNorm().apply(v, x, train=True, **mutable), variables, x),
            train(
                lambda v, x: flax.apply(v, x, use_running_average=False, **mutable), variables, x
            ),
            BatchNorm().apply(variables, x, train=False),
            flax.apply(variables, x, use_running_average=True),
        )

    ours, expected, evaluated, expected_evaluated = both(variables, x)
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for value, exact in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(value, exact, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(evaluated, expected_evaluated, rtol=1e-5, atol=1e-5)


def test_batch_norm_running_averages(rng):
    """A tenth of the way to the batch's mean and biased variance; of groups, to their averages."""
    x, variables = batch(rng), fresh_batch_norm(rng)
    before = variables["batch_stats"]
    for groups in (1, 2):
        _, updates = BatchNorm(groups=groups).apply(
            variables, x, train=True, mutable=["batch_stats"]
        )
        parts = np.float64(x).reshape(groups, -1, 4)
        for name, statistic in {"mean": parts.mean(axis=1), "var": parts.var(axis=1)}.items():
            expected = 0.9 * before[name] + 0.1 * statistic.mean(axis=0)
            np.testing.assert_allclose(updates["batch_stats"][name], expected, rtol=1e-5, atol=1e-6)


def test_batch_norm_groups_have_their_own_statistics(rng):
    x, variables = batch(rng), fresh_batch_norm(rng)
    apply = BatchNorm(groups=2).apply
    y, _ = apply(variables, x, train=True, mutable=["batch_stats"])
    for half in (slice(0, 4), slice(4, 8)):
        alone, _ = BatchNorm().apply(variables, x[half], train=True, mutable=["batch_stats"])
        np.testing.assert_allclose(y[half], alone, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"bn_groups = 2 does not divide the batch of 7 images\."):
        apply(variables, x[:7], train=True, mutable=["batch_stats"])


def test_batch_norm_frozen_at_its_running_averages(rng):
    """Training then computes what evaluation does, and nothing need be mutable."""
    x, variables = batch(rng), fresh_batch_norm(rng)
    frozen = BatchNorm(statistics="running")
    expected = BatchNorm().apply(variables, x, train=False)
    np.testing.assert_array_equal(frozen.apply(variables, x, train=True), expected)
    _, updates = frozen.apply(variables, x, train=True, mutable=["batch_stats"])
    for name, before in variables["batch_stats"].items():
        np.testing.assert_array_equal(updates["batch_stats"][name], before)


def test_batch_norm_starts_at_zero_and_one_and_keeps_float32(rng, key):
    """`init` in training leaves the averages as they start; bfloat16 never reaches them."""
    x = batch(rng).astype(jnp.bfloat16)
    layer = BatchNorm(dtype=jnp.bfloat16)
    variables = layer.init(key, x, train=True)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], 0)
    np.testing.assert_array_equal(variables["batch_stats"]["var"], 1)
    y, updates = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float32")}


def test_squeeze_excite(rng):
    x = rng.normal(size=(3, 4, 5, 6)).astype(np.float32)
    layer = SqueezeExcite(squeezed_features=2, act=nn.relu)
    params = random_variables(rng, layer, x)["params"]
    reduce, expand = (
        {name: np.float64(leaf) for name, leaf in params[conv].items()}
        for conv in ("conv_reduce", "conv_expand")
    )
    gate = np.maximum(x.mean(axis=(1, 2)) @ reduce["kernel"][0, 0] + reduce["bias"], 0)
    gate = np.clip((gate @ expand["kernel"][0, 0] + expand["bias"] + 3) / 6, 0, 1)
    y = jax.jit(layer.apply)({"params": params}, x)
    np.testing.assert_allclose(y, x * gate[:, None, None, :], rtol=1e-5, atol=1e-6)
    narrow = SqueezeExcite(squeezed_features=2, act=nn.relu, dtype=jnp.bfloat16)
    y = jax.eval_shape(narrow.apply, {"params": params}, x.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16


def test_squeeze_excite_with_another_gate(rng):
    x = rng.normal(size=(3, 4, 5, 6)).astype(np.float32)
    layers = [SqueezeExcite(2, nn.relu, gate) for gate in (nn.sigmoid, nn.hard_sigmoid)]
    variables = random_variables(rng, layers[0], x)
    soft, hard = (np.asarray(layer.apply(variables, x) / x) for layer in layers)
    np.testing.assert_allclose(soft, 1 / (1 + np.exp(-_gate_logits(variables, x))), rtol=1e-5)
    np.testing.assert_allclose(hard, np.clip(_gate_logits(variables, x) / 6 + 0.5, 0, 1), atol=1e-6)


def _gate_logits(variables, x):
    reduce, expand = (variables["params"][name] for name in ("conv_reduce", "conv_expand"))
    y = np.maximum(x.mean(axis=(1, 2)) @ reduce["kernel"][0, 0] + reduce["bias"], 0)
    y = y @ expand["kernel"][0, 0] + expand["bias"]
    return np.broadcast_to(y[:, None, None], x.shape)


def test_drop_path_keeps_whole_samples_and_scales_them(key):
    """What is kept is divided by the share that is kept, so the expectation stays."""
    x = jnp.full((20_000, 2, 1, 3), 2.0)
    y = DropPath(0.2).apply({}, x, train=True, rngs={"dropout": key})
    assert set(np.unique(y)) == {0.0, 2.5}
    per_sample = y.reshape(20_000, -1)
    assert (per_sample == per_sample[:, :1]).all()
    # Four standard errors of a share of 0.8 among 20,000.
    assert float((per_sample[:, 0] > 0).mean()) == pytest.approx(0.8, abs=4 * 0.4 / 20_000**0.5)
    assert float(y.mean()) == pytest.approx(2.0, rel=0.015)


def test_drop_path_draws_nothing_where_nothing_is_dropped(rng):
    x = batch(rng)
    np.testing.assert_array_equal(DropPath(0.5).apply({}, x, train=False), x)
    np.testing.assert_array_equal(DropPath(0.0).apply({}, x, train=True), x)


def test_drop_path_is_deterministic_in_its_key(rng):
    x = batch(rng, samples=64)

    def drop(seed):
        return DropPath(0.5).apply({}, x, train=True, rngs={"dropout": jax.random.key(seed)})

    np.testing.assert_array_equal(drop(1), drop(1))
    assert (drop(1) != drop(2)).any()


def test_drop_path_passes_the_kept_gradient(rng, key):
    x = batch(rng, samples=16)

    def drop(x):
        return DropPath(0.25).apply({}, x, train=True, rngs={"dropout": key})

    gradient = jax.grad(lambda x: drop(x).sum())(x)
    np.testing.assert_allclose(gradient, drop(jnp.ones_like(x)), rtol=1e-6)
    assert lax.stop_gradient(gradient).min() == 0
