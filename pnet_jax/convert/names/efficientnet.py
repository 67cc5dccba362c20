"""The names of EfficientNet: timm's, and those of the older `efficientnet_pytorch` packages."""

import re
from collections.abc import Collection, Mapping
from typing import TypeVar

Tensor = TypeVar("Tensor")

RULES = ((r"^blocks_(\d+)_(\d+)(?=\.)", r"blocks.\1.\2"),)

# `efficientnet_pytorch` to timm, outside the blocks, in blocks that expand, and in those that do
# not. It counts the batch norm after an expansion as 0, whether there is one or not.
_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_EXPANDING = _SQUEEZE | {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PLAIN = _SQUEEZE | {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}


def to_timm(state_dict: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """The tensors of an `efficientnet_pytorch` file under timm's names; any other file as it is.

    That package counts blocks through all stages; `wanted`, timm's names of the network, tells
    which block of which stage the k-th is. A tensor that has no place keeps its name.
    """
    if "_conv_stem.weight" not in state_dict:
        return dict(state_dict)
    found = (re.match(r"blocks\.(\d+)\.(\d+)\.", name) for name in wanted)
    blocks = sorted({(int(match[1]), int(match[2])) for match in found if match})

    def rename(name: str) -> str:
        *outer, layer, leaf = name.split(".")
        if not outer:
            return f"{_OUTSIDE.get(layer, layer)}.{leaf}"
        number = int(outer[-1])
        if number >= len(blocks):
            return name
        expands = f"_blocks.{number}._expand_conv.weight" in state_dict
        layer = (_EXPANDING if expands else _PLAIN).get(layer, layer)
        return "blocks.{}.{}.{}.{}".format(*blocks[number], layer, leaf)

    return {rename(name): tensor for name, tensor in state_dict.items()}
