"""Initial values that compile quickly.

XLA compiles each random draw separately, and a network of 400 arrays spends 40 seconds on it. All
arrays here are scaled standard normals, so `from_one_draw` can cut them from a single draw: one
generator to compile instead of 400.
"""

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Shape = Sequence[int]
StandardNormal = Callable[[Any, Shape, Any], jax.Array]

_standard_normal: contextvars.ContextVar[StandardNormal] = contextvars.ContextVar(
    "standard_normal", default=jax.random.normal
)


@dataclasses.dataclass(frozen=True)
class Normal:
    """A Flax initializer: standard normals times `std(shape)`."""

    std: Callable[[Shape], float]

    def __call__(self, key: Any, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        return self.std(shape) * _standard_normal.get()(key, shape, dtype)


def he_fan_out(groups: int = 1, gain: float = 1.0) -> Normal:
    """For convolutions `[..., kh, kw, Ci, Co]`: std = gain sqrt(2 / (kh kw Co / groups)).

    From arXiv 1502.01852.
    """

    def std(shape: Shape) -> float:
        return gain * math.sqrt(2.0 * groups / (shape[-4] * shape[-3] * shape[-1]))

    return Normal(std)


def lecun_fan_in(gain: float = 1.0) -> Normal:
    """For dense kernels `[Ci, Co]`: std = gain / sqrt(Ci)."""
    return Normal(lambda shape: gain / math.sqrt(shape[-2]))


def constant_std(std: float) -> Normal:
    """The same standard deviation whatever the shape."""
    return Normal(lambda shape: std)


def trace_init(init: Callable[[], Any]) -> tuple[Any, int]:
    """The shapes `init()` returns, and how many standard normals it draws; nothing is computed."""
    total = 0

    def count(key: Any, shape: Shape, dtype: Any) -> jax.Array:
        nonlocal total
        total += math.prod(shape)
        return jnp.zeros(shape, dtype)

    with _drawing(count):
        shapes = jax.eval_shape(init)
    return shapes, total


@contextlib.contextmanager
def from_one_draw(key: jax.Array, total: int) -> Iterator[None]:
    """Inside, `Normal` cuts its values from one draw of `total` standard normals, in order."""
    normals = jax.random.normal(key, (total,))
    start = 0

    def cut(_: Any, shape: Shape, dtype: Any) -> jax.Array:
        nonlocal start
        end = start + math.prod(shape)
        values, start = normals[start:end], end
        return values.reshape(shape).astype(dtype)

    with _drawing(cut):
        yield


@contextlib.contextmanager
def _drawing(draw: StandardNormal) -> Iterator[None]:
    token = _standard_normal.set(draw)
    try:
        yield
    finally:
        _standard_normal.reset(token)
