"""Parameters and multiply-accumulates (the FLOPs of the papers), traced from the network itself."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn


class Macs(NamedTuple):
    """Multiply-accumulates of one image, by purpose."""

    conv_linear: int = 0
    mixing: int = 0
    routing: int = 0

    @property
    def total(self) -> int:
        return sum(self)


def count_parameters(params: Any) -> int:
    """Elements of all arrays (or ShapeDtypeStructs) of a tree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def count_macs(model: nn.Module, image_size: int) -> Macs:
    """Multiply-accumulates of one image, in the three parts that the published counts have.

    The network is traced with every dynamic convolution in its reference form, where it is one
    convolution.
    """
    if getattr(model, "num_experts", None) is not None:
        model = model.copy(form="grouped")
    images = jnp.zeros((1, image_size, image_size, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    jaxpr = jax.make_jaxpr(model.apply)(variables, images)
    return _sum(_of_jaxpr(jaxpr.jaxpr))


def _sum(parts: Iterator[Macs]) -> Macs:
    columns = list(zip(*parts, strict=True))
    return Macs(*(sum(column) for column in columns)) if columns else Macs()


def _of_jaxpr(jaxpr: Any) -> Iterator[Macs]:
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            yield Macs(conv_linear=_of_convolution(eqn))
        elif eqn.primitive.name == "dot_general":
            yield _of_dot(eqn)
        elif eqn.primitive.name == "cond":
            # The branches are one function for different platforms; one has a convolution to count.
            branches = (_sum(_of_jaxpr(branch.jaxpr)) for branch in eqn.params["branches"])
            yield max(branches, key=lambda macs: macs.total)
        else:
            for value in eqn.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    yield _sum(_of_jaxpr(inner))


def _of_convolution(eqn: Any) -> int:
    kernel = eqn.invars[1].aval.shape
    out_features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    return math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) // out_features


def _of_dot(eqn: Any) -> Macs:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    macs = math.prod(eqn.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
    modules = str(eqn.source_info.name_stack).split("/")
    if "routing" in modules:
        return Macs(routing=macs)
    # The only other products are the classifier and the mixing of experts by a dynamic layer.
    return Macs(conv_linear=macs) if "classifier" in modules else Macs(mixing=macs)
