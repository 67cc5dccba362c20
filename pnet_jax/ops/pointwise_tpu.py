"""The dynamic 1x1 convolution as Pallas kernels for TPU that mix the experts' outputs in VMEM.

XLA's TPU convolutions of small networks keep the samples in the 128 lanes and the channels in the
sublanes. A batched matrix product with mixed kernels wants channels in the lanes instead, so XLA
copies every activation twice, and at 14 px and below the mixed kernels are as large as the
activations. Here, for each pixel,

    y[:, n] = sum_k coefficients[n, k] (experts[k]^T x[:, n])

is one product with all experts at once, `[K O, C] @ [C, samples]`, and a sum over k in VMEM:
K times the multiplications of a static convolution, on a matrix unit that is idle most of the time,
and the static convolution's HBM traffic in its own layout. The gradient is one kernel that reads x
and dy once: it makes the experts' outputs again instead of keeping them.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

_LANES = 128
# Rows of an expert in the stacked matrix begin at whole tiles of bfloat16.
_ROWS = 16
# Of x and y together, in VMEM at a time; the pipeline holds two of them.
_BLOCK_BYTES = 2 * 2**20
_VMEM_BYTES = 64 * 2**20


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def pointwise(
    x: jax.Array, coefficients: jax.Array, experts: jax.Array, interpret: bool = False
) -> jax.Array:
    """`[P, C, N]`, `[N, K]` and `[K, C, O]` to `[P, O, N]`: P pixels, samples in the last axis.

    `interpret` runs the kernels without a TPU, slowly, for tests.
    """
    return _forward(x, coefficients, experts, interpret)


def _forward(
    x: jax.Array, coefficients: jax.Array, experts: jax.Array, interpret: bool
) -> jax.Array:
    pixels, channels, samples = x.shape
    count, _, features = experts.shape
    lanes = _lanes(samples)
    tile = _pixels_a_block(pixels, (channels + features) * lanes * x.dtype.itemsize)
    stacked = _stack(experts)
    at_pixels = functools.partial(_block, tile, lanes)
    return pl.pallas_call(
        functools.partial(_mix_outputs, features=features),
        grid=(samples // lanes, -(-pixels // tile)),
        in_specs=[at_pixels(channels), _whole(stacked.shape), _of_samples(count, lanes)],
        out_specs=at_pixels(features),
        out_shape=jax.ShapeDtypeStruct((pixels, features, samples), x.dtype),
        cost_estimate=pl.CostEstimate(
            flops=2 * pixels * samples * count * features * channels,
            bytes_accessed=_hbm_bytes(x)
            + _hbm_bytes(stacked)
            + _hbm_bytes(jax.ShapeDtypeStruct((pixels, features, samples), x.dtype)),
            transcendentals=0,
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=_VMEM_BYTES
        ),
        interpret=interpret,
        name="dynamic_pointwise",
    )(x, stacked, coefficients.T.astype(jnp.float32))


def _mix_outputs(x_ref: Any, w_ref: Any, pi_ref: Any, y_ref: Any, *, features: int) -> None:
    rows = _padded(features)

    def pixel(p: jax.Array, _: None) -> None:
        outputs = jnp.dot(w_ref[...], x_ref[p], preferred_element_type=jnp.float32)
        mixed = sum(
            outputs[k * rows : k * rows + features] * pi_ref[k : k + 1]
            for k in range(pi_ref.shape[0])
        )
        y_ref[p] = mixed.astype(y_ref.dtype)

    lax.fori_loop(0, x_ref.shape[0], pixel, None)


def _forward_saving(
    x: jax.Array, coefficients: jax.Array, experts: jax.Array, interpret: bool
) -> Any:
    return _forward(x, coefficients, experts, interpret), (x, coefficients, experts)


def _backward(interpret: bool, saved: Any, dy: jax.Array) -> Any:
    x, coefficients, experts = saved
    pixels, channels, samples = x.shape
    count, _, features = experts.shape
    lanes = _lanes(samples)
    tile = _pixels_a_block(pixels, (2 * channels + features) * lanes * x.dtype.itemsize)
    stacked = _stack(experts)
    at_pixels = functools.partial(_block, tile, lanes)
    dx, dstacked, dcoefficients = pl.pallas_call(
        functools.partial(_gradients, features=features, pixels=pixels, tile=tile),
        grid=(samples // lanes, -(-pixels // tile)),
        in_specs=[
            at_pixels(channels),
            at_pixels(features),
            _whole(stacked.shape),
            _whole(stacked.shape[::-1]),
            _of_samples(count, lanes),
        ],
        out_specs=[at_pixels(channels), _whole(stacked.shape), _of_samples(count, lanes)],
        out_shape=[
            jax.ShapeDtypeStruct(x.shape, x.dtype),
            jax.ShapeDtypeStruct(stacked.shape, jnp.float32),
            jax.ShapeDtypeStruct((count, samples), jnp.float32),
        ],
        scratch_shapes=[pltpu.VMEM((stacked.shape[0], lanes), x.dtype)],
        cost_estimate=pl.CostEstimate(
            flops=6 * pixels * samples * count * features * channels,
            bytes_accessed=2 * _hbm_bytes(x) + _hbm_bytes(dy) + 4 * _hbm_bytes(stacked),
            transcendentals=0,
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=_VMEM_BYTES
        ),
        interpret=interpret,
        name="dynamic_pointwise_gradients",
    )(x, dy, stacked, stacked.T, coefficients.T.astype(jnp.float32))
    dexperts = dstacked.reshape(count, -1, channels)[:, :features].transpose(0, 2, 1)
    return dx, dcoefficients.T.astype(coefficients.dtype), dexperts.astype(experts.dtype)


pointwise.defvjp(_forward_saving, _backward)


def _gradients(
    x_ref: Any,
    dy_ref: Any,
    w_ref: Any,
    wt_ref: Any,
    pi_ref: Any,
    dx_ref: Any,
    dw_ref: Any,
    dpi_ref: Any,
    scaled_ref: Any,
    *,
    features: int,
    pixels: int,
    tile: int,
) -> None:
    rows, count = _padded(features), pi_ref.shape[0]
    first = pl.program_id(1) == 0

    @pl.when(first)
    def _() -> None:
        dpi_ref[...] = jnp.zeros_like(dpi_ref)
        # The rows between an expert's last and the next tile stay zero.
        scaled_ref[...] = jnp.zeros_like(scaled_ref)

    @pl.when(first & (pl.program_id(0) == 0))
    def _() -> None:
        dw_ref[...] = jnp.zeros_like(dw_ref)

    def pixel(p: jax.Array, _: None) -> None:
        x, dy = x_ref[p], dy_ref[p].astype(jnp.float32)
        outputs = jnp.dot(w_ref[...], x, preferred_element_type=jnp.float32)
        for k in range(count):
            mine = outputs[k * rows : k * rows + features]
            dpi_ref[k : k + 1] += jnp.sum(mine * dy, axis=0, keepdims=True)
            scaled_ref[k * rows : k * rows + features] = (dy * pi_ref[k : k + 1]).astype(x.dtype)
        scaled = scaled_ref[...]
        dx_ref[p] = jnp.dot(wt_ref[...], scaled, preferred_element_type=jnp.float32).astype(
            dx_ref.dtype
        )
        dw_ref[...] += lax.dot_general(
            scaled, x, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )

    # The last block may reach beyond the last pixel, into undefined values.
    here = jnp.minimum(tile, pixels - pl.program_id(1) * tile)
    lax.fori_loop(0, here, pixel, None)


def _stack(experts: jax.Array) -> jax.Array:
    """`[K, C, O]` to `[K O', C]`, each expert's rows padded with zeros to whole tiles."""
    _, channels, features = experts.shape
    rows = jnp.pad(experts.transpose(0, 2, 1), ((0, 0), (0, _padded(features) - features), (0, 0)))
    return rows.reshape(-1, channels)


def _padded(features: int) -> int:
    return -(-features // _ROWS) * _ROWS


def _lanes(samples: int) -> int:
    """Samples a block: a part of a block would hold undefined values."""
    return _LANES if samples % _LANES == 0 else samples


def _pixels_a_block(pixels: int, bytes_a_pixel: int) -> int:
    return max(1, min(pixels, _BLOCK_BYTES // bytes_a_pixel))


def _block(tile: int, lanes: int, channels: int) -> pl.BlockSpec:
    return pl.BlockSpec((tile, channels, lanes), lambda n, p: (p, 0, n))


def _whole(shape: tuple[int, ...]) -> pl.BlockSpec:
    return pl.BlockSpec(shape, lambda n, p: (0, 0))


def _of_samples(count: int, lanes: int) -> pl.BlockSpec:
    return pl.BlockSpec((count, lanes), lambda n, p: (0, n))


def _hbm_bytes(array: Any) -> int:
    """With the padding to whole tiles of 8 x 128."""
    *outer, rows, lanes = array.shape
    rows, lanes = -(-rows // 8) * 8, -(-lanes // _LANES) * _LANES
    return math.prod(outer) * rows * lanes * array.dtype.itemsize
