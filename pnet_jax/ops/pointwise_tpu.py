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
import itertools
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
# Of a core, where it is less than that.
_SMALL_VMEM_BYTES = {"TPU v2": 16 * 2**20, "TPU v3": 16 * 2**20, "TPU v4": 16 * 2**20}
# Blocks of pixels and all experts' outputs at one of them: 8 MiB at most where compiled for v4.
_BESIDE_EXPERTS_BYTES = 9 * 2**20


Parts = tuple[jax.Array, ...]


def fit(experts: jax.Array) -> bool:
    """Whether the kernels for experts `[K, C, O]` fit into VMEM of the chip that is compiled for.

    That is the chip of the mesh set by `jax.sharding.use_abstract_mesh`, else of this machine.
    """
    chip = jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]
    count, channels, features = experts.shape
    # The gradient needs them as they are and transposed, and has their own in float32.
    numbers = count * _padded(features) * -(-channels // _LANES) * _LANES
    needed = numbers * (2 * experts.dtype.itemsize + 4) + _BESIDE_EXPERTS_BYTES
    return needed <= _SMALL_VMEM_BYTES.get(chip.device_kind, _VMEM_BYTES)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def pointwise(
    parts: Parts, coefficients: jax.Array, experts: jax.Array, interpret: bool = False
) -> jax.Array:
    """`[P, C, N]`, `[N, K]` and `[K, C, O]` to `[P, O, N]`: P pixels, samples in the last axis.

    The C channels come in one or more `parts`, so that channels from different places need not be
    copied together first. `interpret` runs the kernels without a TPU, slowly, for tests.
    """
    return _forward(parts, coefficients, experts, interpret)


def _forward(
    parts: Parts, coefficients: jax.Array, experts: jax.Array, interpret: bool
) -> jax.Array:
    pixels, _, samples = parts[0].shape
    count, channels, features = experts.shape
    dtype, lanes = parts[0].dtype, _lanes(samples)
    tile = _pixels_a_block(pixels, (channels + features) * lanes * dtype.itemsize)
    stacked = _stack(parts, experts)
    y = jax.ShapeDtypeStruct((pixels, features, samples), dtype)
    at_pixels = functools.partial(_block, tile, lanes)
    return pl.pallas_call(
        functools.partial(_mix_outputs, features=features),
        grid=(samples // lanes, -(-pixels // tile)),
        in_specs=[
            [at_pixels(x.shape[1]) for x in parts],
            [_whole(w.shape) for w in stacked],
            _of_samples(count, lanes),
        ],
        out_specs=at_pixels(features),
        out_shape=y,
        cost_estimate=pl.CostEstimate(
            flops=2 * pixels * samples * count * features * channels,
            bytes_accessed=_hbm_bytes(*parts, *stacked, y),
            transcendentals=0,
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=_VMEM_BYTES
        ),
        interpret=interpret,
        name="dynamic_pointwise",
    )(list(parts), stacked, coefficients.T.astype(jnp.float32))


def _mix_outputs(x_refs: Any, w_refs: Any, pi_ref: Any, y_ref: Any, *, features: int) -> None:
    rows = _padded(features)

    def pixel(p: jax.Array, _: None) -> None:
        outputs = _outputs(w_refs, [x_ref[p] for x_ref in x_refs])
        mixed = sum(
            outputs[k * rows : k * rows + features] * pi_ref[k : k + 1]
            for k in range(pi_ref.shape[0])
        )
        y_ref[p] = mixed.astype(y_ref.dtype)

    lax.fori_loop(0, x_refs[0].shape[0], pixel, None)


def _outputs(w_refs: Any, xs: list[jax.Array]) -> jax.Array:
    """All experts' outputs at a pixel: `[K O', samples]` float32."""
    products = [
        jnp.dot(w_ref[...], x, preferred_element_type=jnp.float32)
        for w_ref, x in zip(w_refs, xs, strict=True)
    ]
    return functools.reduce(jnp.add, products)


def _forward_saving(
    parts: Parts, coefficients: jax.Array, experts: jax.Array, interpret: bool
) -> Any:
    return _forward(parts, coefficients, experts, interpret), (parts, coefficients, experts)


def _backward(interpret: bool, saved: Any, dy: jax.Array) -> Any:
    parts, coefficients, experts = saved
    pixels, _, samples = parts[0].shape
    count, channels, features = experts.shape
    dtype, lanes = parts[0].dtype, _lanes(samples)
    tile = _pixels_a_block(pixels, (2 * channels + features) * lanes * dtype.itemsize)
    stacked = _stack(parts, experts)
    at_pixels = functools.partial(_block, tile, lanes)
    x_specs = [at_pixels(x.shape[1]) for x in parts]
    w_specs = [_whole(w.shape) for w in stacked]
    dparts, dstacked, dcoefficients = pl.pallas_call(
        functools.partial(_gradients, features=features, pixels=pixels, tile=tile),
        grid=(samples // lanes, -(-pixels // tile)),
        in_specs=[
            x_specs,
            at_pixels(features),
            w_specs,
            [_whole(w.shape[::-1]) for w in stacked],
            _of_samples(count, lanes),
        ],
        out_specs=[x_specs, w_specs, _of_samples(count, lanes)],
        out_shape=[
            [jax.ShapeDtypeStruct(x.shape, dtype) for x in parts],
            [jax.ShapeDtypeStruct(w.shape, jnp.float32) for w in stacked],
            jax.ShapeDtypeStruct((count, samples), jnp.float32),
        ],
        scratch_shapes=[pltpu.VMEM((stacked[0].shape[0], lanes), dtype)],
        cost_estimate=pl.CostEstimate(
            flops=6 * pixels * samples * count * features * channels,
            # x and dx, dy, and of the experts both forms and the float32 gradient.
            bytes_accessed=2 * _hbm_bytes(*parts) + _hbm_bytes(dy) + 4 * _hbm_bytes(*stacked),
            transcendentals=0,
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=_VMEM_BYTES
        ),
        interpret=interpret,
        name="dynamic_pointwise_gradients",
    )(list(parts), dy, stacked, [w.T for w in stacked], coefficients.T.astype(jnp.float32))
    rows = jnp.concatenate(dstacked, axis=1).reshape(count, -1, channels)[:, :features]
    dexperts = rows.transpose(0, 2, 1).astype(experts.dtype)
    return tuple(dparts), dcoefficients.T.astype(coefficients.dtype), dexperts


pointwise.defvjp(_forward_saving, _backward)


def _gradients(
    x_refs: Any,
    dy_ref: Any,
    w_refs: Any,
    wt_refs: Any,
    pi_ref: Any,
    dx_refs: Any,
    dw_refs: Any,
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
        for dw_ref in dw_refs:
            dw_ref[...] = jnp.zeros_like(dw_ref)

    def pixel(p: jax.Array, _: None) -> None:
        xs, dy = [x_ref[p] for x_ref in x_refs], dy_ref[p].astype(jnp.float32)
        outputs = _outputs(w_refs, xs)
        for k in range(count):
            mine = outputs[k * rows : k * rows + features]
            dpi_ref[k : k + 1] += jnp.sum(mine * dy, axis=0, keepdims=True)
            scaled = (dy * pi_ref[k : k + 1]).astype(scaled_ref.dtype)
            scaled_ref[k * rows : k * rows + features] = scaled
        scaled = scaled_ref[...]
        for x, wt_ref, dx_ref, dw_ref in zip(xs, wt_refs, dx_refs, dw_refs, strict=True):
            dx = jnp.dot(wt_ref[...], scaled, preferred_element_type=jnp.float32)
            dx_ref[p] = dx.astype(dx_ref.dtype)
            dw_ref[...] += lax.dot_general(
                scaled, x, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
            )

    # The last block may reach beyond the last pixel, into undefined values.
    here = jnp.minimum(tile, pixels - pl.program_id(1) * tile)
    lax.fori_loop(0, here, pixel, None)


def _stack(parts: Parts, experts: jax.Array) -> list[jax.Array]:
    """For each part with its C channels `[K O', C]`, experts' rows padded with zeros to tiles."""
    _, channels, features = experts.shape
    rows = jnp.pad(experts.transpose(0, 2, 1), ((0, 0), (0, _padded(features) - features), (0, 0)))
    ends = list(itertools.accumulate(x.shape[1] for x in parts))
    return jnp.split(rows.reshape(-1, channels), ends[:-1], axis=1)


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


def _hbm_bytes(*arrays: Any) -> int:
    """With the padding to whole tiles of 8 x 128."""

    def of_one(array: Any) -> int:
        *outer, rows, lanes = array.shape
        rows, lanes = -(-rows // 8) * 8, -(-lanes // _LANES) * _LANES
        return math.prod(outer) * rows * lanes * array.dtype.itemsize

    return sum(map(of_one, arrays))
