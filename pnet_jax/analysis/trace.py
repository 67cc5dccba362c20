"""The products of a network: every convolution and matrix product of one image, and what it is.

The network is traced, not run, and each value of the trace is followed back to what it was made of:
the image, the parameters, or, for the kernels that dynamic layers mix, both. A product of an
activation with parameters is a layer; one of two activations is attention.
"""

import enum
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from pnet_jax.models.dynamic import Router
from pnet_jax.ops.pointwise import MIXING

Path = tuple[str, ...]


class Origin(enum.IntEnum):
    """What a value was made of; a value made of several is the highest of them."""

    CONSTANT = 0
    PARAMETER = 1
    MIXED_KERNEL = 2  # of a dynamic layer: parameters, weighted by coefficients of the image
    ACTIVATION = 3


class Product(NamedTuple):
    """One convolution or matrix product of one image."""

    purpose: str  # a field of `count.Macs`
    module: Path  # that owns the parameters or, for attention, that computes the product
    kind: str  # such as "conv 3x3/2", "depthwise 5x5", "linear", "attention"
    dynamic: bool  # whether the kernel was mixed for this image
    output_shape: tuple[int, ...]  # without the batch axis
    macs: int


class Trace(NamedTuple):
    """What one image passes through."""

    products: list[Product]
    parameters: dict[Path, jax.ShapeDtypeStruct]
    modules: dict[Path, str]  # path -> class name, in the order of the first call
    routers: set[Path]


class _Value(NamedTuple):
    origin: Origin
    parameter: Path = ()  # one that it was made of


_CONSTANT = _Value(Origin.CONSTANT)
_ACTIVATION = _Value(Origin.ACTIVATION)


def trace(model: nn.Module, image_size: int) -> Trace:
    """Traces `model.apply` on one image of `image_size` pixels a side.

    Dynamic layers are traced in their reference form, where each is one convolution; a network with
    dynamic layers must hand its field `form` on to them.

    Raises:
      ValueError: for a product inside a loop of unknown length.
    """
    if getattr(model, "num_experts", None) is not None and hasattr(model, "form"):
        model = model.copy(form="grouped")
    # Shapes only: nothing is put on a device, which another process may be using.
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = jax.eval_shape(model.init, key, images)
    modules: dict[Path, str] = {}
    routers: set[Path] = set()

    def record(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        path = context.module.path
        modules.setdefault(path, type(context.module).__name__)
        if isinstance(context.module, Router):
            routers.add(path)
        return next_call(*args, **kwargs)

    with nn.intercept_methods(record):
        jaxpr = jax.make_jaxpr(model.apply)(variables, images).jaxpr
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    paths = [tuple(str(key.key) for key in path) for path, _ in leaves]
    # Running statistics scale activations like parameters, but are not counted as such.
    inputs = [_Value(Origin.PARAMETER, path[1:]) for path in paths] + [_ACTIVATION]
    products = _Walk(modules, routers).products(jaxpr, inputs, "", {})
    parameters = traverse_util.flatten_dict(variables.get("params", {}))
    return Trace(list(products), parameters, modules, routers)


class _Walk(NamedTuple):
    modules: dict[Path, str]
    routers: set[Path]

    def products(
        self, jaxpr: Any, inputs: Sequence[_Value], scope: str, values: dict[Any, _Value]
    ) -> Iterator[Product]:
        """The products of a jaxpr; `values` is filled with the values of its variables."""
        values.update(zip(jaxpr.invars, inputs, strict=True))
        for eqn in jaxpr.eqns:
            operands = [
                values.get(v, _CONSTANT) if _is_variable(v) else _CONSTANT for v in eqn.invars
            ]
            inside = "/".join(part for part in (scope, str(eqn.source_info.name_stack)) if part)
            result = max(operands, default=_CONSTANT, key=lambda value: value.origin)
            results = [result] * len(eqn.outvars)
            if eqn.primitive.name in ("conv_general_dilated", "dot_general"):
                product = self._product(eqn, operands, inside)
                yield product
                if product.purpose == "mixing" and operands[1].origin <= Origin.PARAMETER:
                    results = [_Value(Origin.MIXED_KERNEL, operands[1].parameter)]
            else:
                branches = [self._inner(inner, operands, inside) for inner in _inner_jaxprs(eqn)]
                if branches:
                    # The branches of a `cond` are one function for different platforms: the one
                    # with a convolution to count is taken.
                    found, results = max(branches, key=lambda b: sum(p.macs for p in b[0]))
                    yield from _repeated(eqn, found)
            values.update(zip(eqn.outvars, results, strict=True))

    def _inner(
        self, jaxpr: Any, operands: Sequence[_Value], scope: str
    ) -> tuple[list[Product], list[_Value]]:
        # A `cond` has its index in front, a `while` the constants of its condition.
        inputs = operands[len(operands) - len(jaxpr.invars) :]
        values: dict[Any, _Value] = {}
        found = list(self.products(jaxpr, inputs, scope, values))
        results = [
            values.get(v, _CONSTANT) if _is_variable(v) else _CONSTANT for v in jaxpr.outvars
        ]
        return found, results

    def _product(self, eqn: Any, operands: Sequence[_Value], scope: str) -> Product:
        shape = tuple(eqn.outvars[0].aval.shape)
        image_shape = shape[1:] if shape[:1] == (1,) else shape  # matmul drops a batch of 1
        left, right = operands
        if eqn.primitive.name == "conv_general_dilated":
            weights = right
            macs, kind = _convolution(eqn)
        else:
            # A matrix product may have its kernel on either side.
            weights, kind = min(left, right, key=lambda value: value.origin), "linear"
            (contracted, _), _ = eqn.params["dimension_numbers"]
            lengths = eqn.invars[0].aval.shape
            macs = math.prod(shape) * math.prod(lengths[axis] for axis in contracted)
        module = weights.parameter[:-1] or self._module(scope)
        router = next((path for path in self.routers if module[: len(path)] == path), None)
        if router is not None:
            return Product("routing", router[:-1], "routing", False, image_shape, macs)
        if MIXING in scope.split("/"):
            return Product("mixing", module, "mixing", False, image_shape, macs)
        if weights.origin is Origin.ACTIVATION:
            module = self._module(scope)
            return Product("attention", module, "attention", False, image_shape, macs)
        dynamic = weights.origin is Origin.MIXED_KERNEL
        return Product("conv_linear", module, kind, dynamic, image_shape, macs)

    def _module(self, scope: str) -> Path:
        """The innermost module of a scope such as `Net/blocks_0/Attention.scores/nij,njk->nik`."""
        path: Path = ()
        for part in scope.split("/")[1:]:
            if (*path, part) in self.modules:
                path = (*path, part)
            elif "." not in part:  # a method is no level of its own
                break
        return path


def _is_variable(atom: Any) -> bool:
    return not hasattr(atom, "val")  # literals have one


def _inner_jaxprs(eqn: Any) -> Iterator[Any]:
    if eqn.primitive.name == "while":
        yield eqn.params["body_jaxpr"].jaxpr
        return
    for value in eqn.params.values():
        for element in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(element, "jaxpr", element)
            if hasattr(inner, "eqns"):
                yield inner


def _repeated(eqn: Any, products: list[Product]) -> list[Product]:
    if eqn.primitive.name == "while" and products:
        raise ValueError(
            f"{'/'.join(products[0].module)} computes a product in a loop whose length the trace "
            "does not show; it cannot be counted."
        )
    times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
    return [product._replace(macs=product.macs * times) for product in products]


def _convolution(eqn: Any) -> tuple[int, str]:
    numbers, kernel = eqn.params["dimension_numbers"], eqn.invars[1].aval.shape
    _, inputs, *window = (kernel[axis] for axis in numbers.rhs_spec)
    groups = eqn.params["feature_group_count"]
    macs = math.prod(eqn.outvars[0].aval.shape) * math.prod(window) * inputs
    stride = max(eqn.params["window_strides"])
    kind = "conv" if groups == 1 else "depthwise" if inputs == 1 else f"conv ({groups} groups)"
    size = "x".join(str(length) for length in window)
    return macs, f"{kind} {size}" + (f"/{stride}" if stride > 1 else "")
