"""Dynamic convolution: every sample is convolved with its own kernel, a mix of K experts.

    y_n = x_n * (sum_k coefficients[n, k] experts[k])      (ParameterNet, arXiv 2306.14525, eq. 4)

The definition, one convolution under `vmap` over (sample, kernel), is the form `grouped`. XLA turns
it into one convolution with as many groups as samples, the slowest choice on every backend, so
other forms of the same function stand beside it, and `auto` picks by the layer's shape:

| form      | for                     | how                                               |
|-----------|-------------------------|---------------------------------------------------|
| `matmul`  | 1x1                     | batched matrix product with the mixed kernel      |
| `lanes`   | 1x1                     | on TPU the kernels of `pointwise_tpu.py`, else `matmul` |
| `shift`   | depthwise               | shifted inputs times per-sample weights, summed   |
| `patches` | few input channels      | the window's pixels side by side, then `lanes`   |
| `experts` | anything                | one static convolution with K outputs, then mixed |
| `grouped` | anything, the reference | `vmap` of a convolution                           |
"""

import jax
import jax.numpy as jnp
from jax import lax

from pnet_jax.ops.depthwise import depthwise_conv
from pnet_jax.ops.padding import Padding, sides
from pnet_jax.ops.pointwise import MIXING, dynamic_pointwise, mixed_matmul

FORMS = ("auto", "grouped", "experts", "matmul", "lanes", "shift", "patches")

# Above this many input channels the window's pixels side by side cost more memory than they save
# time.
_MAX_PATCH_CHANNELS = 8


def mix_kernels(coefficients: jax.Array, experts: jax.Array) -> jax.Array:
    """Each sample's kernel: `[N, K]` and `[K, kh, kw, Ci/groups, Co]` to `[N, kh, kw, ...]`."""
    with jax.named_scope(MIXING):
        mixed = coefficients @ experts.reshape(experts.shape[0], -1)
    return mixed.reshape(-1, *experts.shape[1:])


def dynamic_conv(
    x: jax.Array | tuple[jax.Array, ...],
    coefficients: jax.Array,
    experts: jax.Array,
    *,
    strides: int = 1,
    padding: Padding = 0,
    groups: int = 1,
    form: str = "auto",
) -> jax.Array:
    """Convolves each sample with its own mix of the experts.

    Args:
      x: `[N, H, W, Ci]`; the computation runs in its dtype. The channels may come in parts, which
        the form `lanes` does not copy together on TPU.
      coefficients: `[N, K]`, each expert's share in each sample's kernel.
      experts: `[K, kh, kw, Ci / groups, Co]`.
      strides: step between output pixels, the same in both directions.
      padding: zeros added on each of the four sides, or ((top, bottom), (left, right)) zeros.
      groups: channel groups; `groups == Ci == Co` is a depthwise convolution.
      form: one of `FORMS`; all are the same function.

    Returns:
      `[N, H', W', Co]` in x's dtype.

    Raises:
      ValueError: if the form does not exist or cannot compute this shape.
    """
    parts = x if isinstance(x, tuple) else (x,)
    coefficients, experts = (a.astype(parts[0].dtype) for a in (coefficients, experts))
    _, kh, kw, _, features = experts.shape
    pointwise = kh == kw == 1 and groups == 1
    if (
        pointwise
        and strides == 1
        and not any(map(any, sides(padding)))
        and form in ("auto", "lanes")
    ):
        return dynamic_pointwise(parts, coefficients, experts[:, 0, 0])
    x = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
    depthwise = groups == x.shape[-1] == features
    if form == "auto":
        form = "matmul" if pointwise else "shift" if depthwise else ""
        # Never `grouped`: on a sharded batch XLA gathers all samples on every device for it.
        if not form:
            few = groups == 1 and x.shape[-1] <= _MAX_PATCH_CHANNELS
            form = "patches" if few else "experts"
    if form == "experts":
        return _mixed_outputs(x, coefficients, experts, strides, padding, groups)
    if form == "patches" and groups == 1:
        patches = _patches(_pad(x, padding), kh, kw, strides)
        by_pixel = experts.reshape(experts.shape[0], -1, features)
        return dynamic_pointwise((patches,), coefficients, by_pixel)
    if form == "matmul" and pointwise:
        strided = _pad(x, padding)[:, ::strides, ::strides]
        return mixed_matmul((strided,), coefficients, experts[:, 0, 0])
    kernels = mix_kernels(coefficients, experts)
    if form == "grouped":
        return jax.vmap(
            lambda image, kernel: _convolve(image[None], kernel, strides, padding, groups)[0]
        )(x, kernels)
    if form == "shift" and depthwise:
        return depthwise_conv(x, kernels[:, :, :, 0], strides, padding)
    if form not in FORMS:
        raise ValueError(f"There is no form {form!r}; the forms are {', '.join(FORMS)}.")
    raise ValueError(
        f"The form {form!r} cannot compute a {kh}x{kw} convolution of {x.shape[-1]} to {features} "
        f"channels in {groups} groups; 'auto' picks one that can."
    )


def _pad(x: jax.Array, padding: Padding) -> jax.Array:
    return jnp.pad(x, ((0, 0), *sides(padding), (0, 0)))


def _convolve(
    x: jax.Array, kernel: jax.Array, strides: int, padding: Padding, groups: int
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(strides, strides),
        padding=sides(padding),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _mixed_outputs(
    x: jax.Array,
    coefficients: jax.Array,
    experts: jax.Array,
    strides: int,
    padding: Padding,
    groups: int,
) -> jax.Array:
    """Convolution is linear in its kernel, so mixing the K outputs equals mixing the K kernels."""
    count, kh, kw, inputs, features = experts.shape
    # [K, kh, kw, I, G, O/G] -> [kh, kw, I, G, K, O/G]: all experts' outputs for one group together.
    kernel = experts.reshape(count, kh, kw, inputs, groups, features // groups)
    kernel = kernel.transpose(1, 2, 3, 4, 0, 5).reshape(kh, kw, inputs, count * features)
    outputs = _convolve(x, kernel, strides, padding, groups)
    outputs = outputs.reshape(*outputs.shape[:3], groups, count, features // groups)
    with jax.named_scope(MIXING):
        mixed = jnp.einsum("nk,nhwgko->nhwgo", coefficients, outputs)
    return mixed.reshape(*mixed.shape[:3], features)


def _patches(x: jax.Array, kh: int, kw: int, strides: int) -> jax.Array:
    """The pixels of every window side by side: `[N, H', W', kh * kw * C]`."""
    rows = (x.shape[1] - kh) // strides * strides + 1
    columns = (x.shape[2] - kw) // strides * strides + 1
    return jnp.concatenate(
        [
            x[:, i : i + rows : strides, j : j + columns : strides]
            for i in range(kh)
            for j in range(kw)
        ],
        axis=-1,
    )
