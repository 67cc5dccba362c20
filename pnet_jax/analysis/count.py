"""Parameters and multiply-accumulates (the FLOPs of the papers), traced from the network itself."""

import math
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from pnet_jax.analysis.trace import Path, Product, Trace, trace


class Macs(NamedTuple):
    """Multiply-accumulates of one image, by purpose."""

    conv_linear: int = 0
    mixing: int = 0  # the experts of dynamic layers into a kernel
    routing: int = 0  # the coefficients of that mix
    attention: int = 0  # the products of queries with keys, and of their weights with values

    @property
    def total(self) -> int:
        return sum(self)


class Layer(NamedTuple):
    """A convolution, a linear layer, an attention, or another module with parameters of its own."""

    name: str
    kind: str  # such as "depthwise 5x5/2", "dynamic conv 1x1", "attention", "BatchNorm"
    output_shape: tuple[int, ...]  # without the batch; empty where there is no product to show it
    params: int
    macs: Macs
    # Of a dynamic layer: how many experts, and their parameters and the router's, among `params`.
    num_experts: int | None = None
    expert_params: int = 0
    router_params: int = 0


class Count(NamedTuple):
    """What a network costs: its layers in the order in which an image passes them."""

    layers: list[Layer]
    params: int
    macs: Macs
    activations: int  # elements that convolutions and linear layers put out


def count_parameters(params: Any) -> int:
    """Elements of all arrays (or ShapeDtypeStructs) of a tree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def count_macs(model: nn.Module, image_size: int) -> Macs:
    """Multiply-accumulates of one image of `image_size` pixels a side, by purpose."""
    return _sum(trace(model, image_size).products)


def count(model: nn.Module, image_size: int) -> Count:
    """Parameters, multiply-accumulates and activations of one image, in total and by layer."""
    traced = trace(model, image_size)
    layer_of = {path: _owner(path, traced) for path in traced.parameters}
    products: dict[Path, list[Product]] = {path: [] for path in traced.modules}
    for product in traced.products:
        products.setdefault(product.module, []).append(product)
    names = [path for path in products if products[path] or path in layer_of.values()]
    return Count(
        layers=[_layer(path, products[path], layer_of, traced) for path in names],
        params=count_parameters(traced.parameters),
        macs=_sum(traced.products),
        activations=sum(
            math.prod(product.output_shape)
            for product in traced.products
            if product.purpose == "conv_linear"
        ),
    )


def _owner(parameter: Path, traced: Trace) -> Path:
    """The module in whose line of the table a parameter is counted; a router's is its parent's."""
    for router in traced.routers:
        if parameter[: len(router)] == router:
            return router[:-1]
    return parameter[:-1]


def _layer(path: Path, products: list[Product], layer_of: dict[Path, Path], traced: Trace) -> Layer:
    sizes = {
        parameter: math.prod(traced.parameters[parameter].shape)
        for parameter, owner in layer_of.items()
        if owner == path
    }
    router_params = sum(size for parameter, size in sizes.items() if parameter[:-1] != path)
    # Of the products of a dynamic layer, the last one is the convolution.
    shown = [p for p in products if p.purpose in ("conv_linear", "attention")]
    kind = shown[-1].kind if shown else traced.modules.get(path, "")
    experts = traced.parameters.get((*path, "experts"))
    return Layer(
        name="/".join(path) or traced.modules[()],
        kind=f"dynamic {kind}" if shown and shown[-1].dynamic else kind,
        output_shape=shown[-1].output_shape if shown else (),
        params=sum(sizes.values()),
        macs=_sum(products),
        num_experts=None if experts is None else experts.shape[0],
        expert_params=sizes.get((*path, "experts"), 0),
        router_params=router_params,
    )


def _sum(products: list[Product]) -> Macs:
    purposes = [(product.purpose, product.macs) for product in products]
    return Macs(
        *(sum(macs for purpose, macs in purposes if purpose == field) for field in Macs._fields)
    )
