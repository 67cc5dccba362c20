"""The PyTorch name of a leaf of the Flax tree, one file of rules for each family of networks.

One direction is enough: reading a foreign file asks, for each leaf of our own tree, which tensor it
wants.
"""

import re
from collections.abc import Collection

from pnet_jax.convert.names import efficientnet, ghostnet, resnet, swin

Rules = tuple[tuple[str, str], ...]

# By the beginning of the model's name. A family's rules come before the rules of all.
_FAMILIES: dict[str, Rules] = {
    "efficientnet": efficientnet.RULES,
    "ghostnet": ghostnet.RULES,
    "parameternet": ghostnet.RULES,
    "resnet": resnet.RULES,
    "swin": swin.RULES,
}
_OF_ALL: Rules = (
    (r"(?<=\.routing)\.hidden(?=\.)", ".0"),
    (r"\.experts$", ".cond_conv.weight"),
    (r"\.(kernel|scale)$", ".weight"),
    (r"\.(mean|var)$", r".running_\1"),
)


def torch_name(model_name: str, path: tuple[str, ...], paths: Collection[tuple[str, ...]]) -> str:
    """The published name of the leaf at `path`, one of all `paths` of that model.

    A path is a tuple such as `("params", "conv_stem", "experts")`.
    """
    name = ".".join(path[1:])
    # A router of two layers is a Sequential with the activation at place 1, a router of one layer
    # is just it.
    two_layers = (*path[:-2], "hidden", "kernel") in paths
    name = re.sub(r"(?<=\.routing)\.out(?=\.)", ".2" if two_layers else "", name)
    family = next(rules for start, rules in _FAMILIES.items() if model_name.startswith(start))
    for pattern, theirs in family + _OF_ALL:
        name = re.sub(pattern, theirs, name)
    return name
