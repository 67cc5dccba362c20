"""What each product of a network is: by the origin of its operands, wherever it stands."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jax import lax

from pnet_jax.analysis.trace import trace
from pnet_jax.models.dynamic import DynamicConv
from pnet_jax.models.layers import Conv

PIXELS = 8 * 8


class Attention(nn.Module):
    """Two heads over the pixels of an image, by methods and inside `jit`, with a table of its own.

    `_scores` uses einsum, the other product `@`.
    """

    def setup(self):
        self.qkv = nn.Dense(24, name="qkv")
        self.proj = nn.Dense(8, name="proj")
        self.table = self.param("table", nn.initializers.zeros, (2, PIXELS, PIXELS))

    def __call__(self, x):
        shape = x.shape
        x = self.qkv(x.reshape(1, PIXELS, -1)).reshape(1, PIXELS, 3, 2, 4)
        query, key, value = (x[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
        weights = nn.softmax(self._scores(query, key) + self.table)
        y = jax.jit(jnp.matmul)(weights, value)
        return self.proj(y.transpose(0, 2, 1, 3).reshape(*shape[:3], -1))

    def _scores(self, query, key):
        return jnp.einsum("nhqd,nhkd->nhqk", query, key)


class Network(nn.Module):
    """A patch embedding, attention, a dynamic linear layer on its output, a classifier."""

    form: str = "auto"
    num_experts: int = 3

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(8, (4, 4), (4, 4), name="embed")(images)
        x = x + Attention(name="attn")(nn.LayerNorm(name="norm")(x))
        dynamic = DynamicConv(
            16, num_experts=3, routing="sigmoid_linear", form=self.form, name="fc1"
        )
        x = dynamic(x)
        return nn.Dense(10, name="head")(x.mean(axis=(1, 2)))


def products_of(model, image_size=32):
    return [
        (p.purpose, "/".join(p.module), p.kind, p.dynamic, p.output_shape, p.macs)
        for p in trace(model, image_size).products
    ]


def test_every_product_by_its_operands():
    scores = 2 * PIXELS * PIXELS * 4
    assert products_of(Network()) == [
        ("conv_linear", "embed", "conv 4x4/4", False, (8, 8, 8), PIXELS * 48 * 8),
        ("conv_linear", "attn/qkv", "linear", False, (64, 24), PIXELS * 8 * 24),
        ("attention", "attn", "attention", False, (2, 64, 64), scores),
        ("attention", "attn", "attention", False, (2, 64, 4), scores),
        ("conv_linear", "attn/proj", "linear", False, (8, 8, 8), PIXELS * 8 * 8),
        ("routing", "fc1", "routing", False, (3,), 8 * 3),
        ("mixing", "fc1", "mixing", False, (128,), 3 * 8 * 16),
        ("conv_linear", "fc1", "conv 1x1", True, (8, 8, 16), PIXELS * 8 * 16),
        ("conv_linear", "head", "linear", False, (10,), 160),
    ]


def test_a_mixed_kernel_in_a_matrix_product_is_a_linear_layer():
    """A network without the field `form` keeps the batched product, which costs the same."""

    class Linear(nn.Module):
        @nn.compact
        def __call__(self, x):
            return DynamicConv(16, routing="sigmoid_linear", form="matmul", name="fc")(x)

    *_, (_, _, mixing, _, _, _), last = products_of(Linear(), 8)
    assert mixing == "mixing"
    assert last == ("conv_linear", "fc", "linear", True, (64, 16), PIXELS * 3 * 16)


def test_mixed_outputs_are_activations():
    """In the form `experts` the outputs are mixed, and are no kernels to what follows."""

    class Mixed(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = DynamicConv(4, 3, routing="sigmoid_linear", form="experts", name="c")(x)
            x = x.reshape(1, -1, 4)
            return jnp.einsum("nid,njd->nij", x, x)

    purposes = [(purpose, macs) for purpose, *_, macs in products_of(Mixed(), 8)]
    assert purposes == [
        ("routing", 3 * 4),
        ("conv_linear", PIXELS * 27 * 16),
        ("mixing", 4 * PIXELS * 4),
        ("attention", PIXELS * PIXELS * 4),
    ]


def test_depthwise_and_grouped_convolutions():
    class Convolutions(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = Conv(12, kernel_size=3, name="full")(x)
            x = Conv(12, kernel_size=5, strides=2, groups=12, name="depthwise")(x)
            return Conv(24, kernel_size=3, groups=4, name="grouped")(x)

    assert [
        (module, kind, macs) for _, module, kind, _, _, macs in products_of(Convolutions(), 8)
    ] == [
        ("full", "conv 3x3", PIXELS * 27 * 12),
        ("depthwise", "depthwise 5x5/2", 16 * 25 * 12),
        ("grouped", "conv (4 groups) 3x3", 16 * 27 * 24),
    ]


def test_a_loop_of_known_length_counts_every_turn():
    class Scanned(nn.Module):
        @nn.compact
        def __call__(self, x):
            kernel = self.param("kernel", nn.initializers.zeros, (3, 3))
            return lax.scan(lambda carry, _: (carry @ kernel, None), x, None, length=5)[0]

    assert products_of(Scanned(), 8) == [
        ("conv_linear", "", "linear", False, (8, 8, 3), 5 * PIXELS * 9)
    ]


def test_a_loop_of_unknown_length_is_refused():
    class Looped(nn.Module):
        @nn.compact
        def __call__(self, x):
            kernel = self.param("kernel", nn.initializers.zeros, (3, 3))
            return lax.while_loop(lambda x: x.sum() > 1, lambda x: x @ kernel, x)

    with pytest.raises(ValueError, match="in a loop whose length the trace does not show"):
        trace(Looped(), 8)


def test_nothing_is_put_on_a_device():
    before = len(jax.live_arrays())
    trace(Network(), 32)
    assert len(jax.live_arrays()) == before


def test_parameters_modules_and_routers():
    traced = trace(Network(), 32)
    assert traced.routers == {("fc1", "routing")}
    assert traced.modules[("attn",)] == "Attention"
    assert list(traced.modules)[:3] == [(), ("embed",), ("norm",)]
    assert traced.parameters[("fc1", "experts")].shape == (3, 1, 1, 8, 16)
    assert ("attn", "table") in traced.parameters
