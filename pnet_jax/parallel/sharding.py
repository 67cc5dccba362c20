"""Where parameters and optimizer state live: split over the `fsdp` axis, or whole everywhere."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# Arrays below this many elements are not worth a gather.
_MIN_ELEMENTS = 16_384


def fsdp_sharding(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """Splits the largest dimension that the `fsdp` axis divides; 21,841 classes are odd."""
    parts = mesh.shape["fsdp"]
    size = 1
    for dimension in shape:
        size *= dimension
    divisible = [i for i, dimension in enumerate(shape) if dimension % parts == 0]
    if parts == 1 or size < _MIN_ELEMENTS or not divisible:
        return NamedSharding(mesh, PartitionSpec())
    largest = max(divisible, key=lambda i: shape[i])
    return NamedSharding(mesh, PartitionSpec(*(None,) * largest, "fsdp"))


def tree_sharding(mesh: Mesh, tree: Any) -> Any:
    """The sharding of each array (or ShapeDtypeStruct) of a tree."""
    return jax.tree.map(lambda leaf: fsdp_sharding(mesh, leaf.shape), tree)
