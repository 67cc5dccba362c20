"""Standard deviations by shape, and many arrays cut from one draw."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.models.initializers import (
    constant_std,
    from_one_draw,
    he_fan_out,
    lecun_fan_in,
    trace_init,
)


@pytest.mark.parametrize(
    ("init", "shape", "std"),
    [
        (he_fan_out(), (3, 3, 64, 32), math.sqrt(2 / (9 * 32))),
        (he_fan_out(groups=64), (5, 5, 1, 64), math.sqrt(2 / 25)),
        (he_fan_out(gain=3.0), (4, 1, 1, 96, 64), 3 * math.sqrt(2 / 64)),
        (lecun_fan_in(), (256, 40), 1 / 16),
        (lecun_fan_in(3**-0.5), (300, 40), 1 / 30),  # PyTorch's uniform in +-1 / sqrt(300)
        (constant_std(0.01), (128, 100), 0.01),
    ],
)
def test_standard_deviations(key, init, shape, std):
    assert init.std(shape) == pytest.approx(std)
    values = init(key, shape)
    assert (values.shape, values.dtype) == (shape, jnp.float32)
    error = 4 / math.sqrt(2 * values.size)  # four standard errors
    assert float(values.std()) == pytest.approx(std, rel=error)
    assert abs(float(values.mean())) < 4 * std / math.sqrt(values.size)


def draw_three(key):
    keys = jax.random.split(key, 3)
    return {
        "first": constant_std(1.0)(keys[0], (50, 40)),
        "second": constant_std(2.0)(keys[1], (2000,)),
        "third": constant_std(1.0)(keys[2], (2, 3), jnp.bfloat16),
    }


def test_trace_init_counts_what_is_drawn(key):
    shapes, total = trace_init(lambda: draw_three(key))
    assert total == 2000 + 2000 + 6
    assert shapes["first"] == jax.ShapeDtypeStruct((50, 40), jnp.float32)
    assert shapes["third"].dtype == jnp.bfloat16


def test_from_one_draw_cuts_without_overlap(key):
    with from_one_draw(key, 4006):
        cut = draw_three(jax.random.key(99))
    normals = jax.random.normal(key, (4006,))
    np.testing.assert_array_equal(cut["first"], normals[:2000].reshape(50, 40))
    np.testing.assert_array_equal(cut["second"], 2 * normals[2000:4000])
    np.testing.assert_array_equal(cut["third"], normals[4000:].reshape(2, 3).astype(jnp.bfloat16))


def test_outside_the_context_each_array_has_its_own_key(key):
    """Also after an error inside it."""

    def fail():
        with from_one_draw(key, 10):
            raise KeyError

    before = draw_three(key)
    with pytest.raises(KeyError):
        fail()
    np.testing.assert_array_equal(draw_three(key)["second"], before["second"])
