"""Where parameters and optimizer state live: split over the `fsdp` axis, or whole everywhere."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pnet_jax.errors import UserError

# Arrays below this many elements are not worth a gather.
_MIN_ELEMENTS = 16_384


class Rule(NamedTuple):
    """What happens to the parameters whose whole name fits the regular expression."""

    names: str
    action: str


class Placed(NamedTuple):
    """A parameter, the rule that it falls under, and what came of it."""

    name: str
    shape: tuple[int, ...]
    rule: Rule
    sharding: NamedSharding


@dataclasses.dataclass(frozen=True)
class ShardingPlan:
    """The sharding of every array of a training state."""

    state: Any
    parameters: list[Placed]

    def table(self) -> list[dict[str, str]]:
        """For each rule how many parameters it splits and what remains on one device."""
        rows = []
        for rule in dict.fromkeys(placed.rule for placed in self.parameters):
            mine = [placed for placed in self.parameters if placed.rule == rule]
            split = [placed for placed in mine if not placed.sharding.is_fully_replicated]
            total = sum(math.prod(placed.shape) for placed in mine)
            on_one = sum(math.prod(p.sharding.shard_shape(p.shape)) for p in mine)
            rows.append(
                {
                    "names": rule.names,
                    "rule": rule.action,
                    "arrays": f"{len(mine):,}",
                    "of them split": f"{len(split):,}",
                    "parameters": f"{total:,}",
                    "on one device": f"{on_one:,}",
                }
            )
        return rows


def parse_rules(text: str) -> tuple[Rule, ...]:
    """The rules of `"classifier/.*=replicate; .*=fsdp"`, in their order.

    Raises:
      UserError: if the text cannot be read.
    """
    rules = []
    for part in text.split(";"):
        names, _, action = part.strip().rpartition("=")
        try:
            re.compile(names)
        except re.error as error:
            raise UserError(
                f"config.sharding: {names!r} is no regular expression ({error})."
            ) from error
        if not names or action not in ("fsdp", "replicate"):
            raise UserError(
                f"config.sharding = {text!r} cannot be read at {part.strip()!r}; write it as "
                f"'classifier/.*=replicate; .*=fsdp'."
            )
        rules.append(Rule(names, action))
    return tuple(rules)


def plan_sharding(mesh: Mesh, state: Any, params: Any, rules: Sequence[Rule]) -> ShardingPlan:
    """Where the arrays of a training state live.

    Args:
      mesh: with the axis `fsdp`.
      state: arrays or ShapeDtypeStructs. What ends with a parameter's path (moments, averages)
        lives where the parameter does; everything else is whole on every device.
      params: the parameters, nested dictionaries as they are in `state`.
      rules: the first whose expression fits the whole name, such as
        `blocks_0_0/ghost1/primary_conv/kernel`, counts.

    Raises:
      UserError: if a parameter fits no rule.
    """
    placed = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = _name(path)
        rule = next((rule for rule in rules if re.fullmatch(rule.names, name)), None)
        if rule is None:
            raise UserError(
                f"config.sharding says nothing of the parameter {name}; end it with '; .*=fsdp'."
            )
        whole = NamedSharding(mesh, PartitionSpec())
        sharding = fsdp_sharding(mesh, leaf.shape) if rule.action == "fsdp" else whole
        placed[name] = Placed(name, leaf.shape, rule, sharding)

    def of(path: Any, leaf: Any) -> NamedSharding:
        for start in range(len(path)):
            owner = placed.get(_name(path[start:]))
            if owner is not None and owner.shape == leaf.shape:
                return owner.sharding
        return NamedSharding(mesh, PartitionSpec())

    shardings = jax.tree_util.tree_map_with_path(of, state)
    return ShardingPlan(shardings, list(placed.values()))


def fsdp_sharding(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """Splits the largest dimension that the `fsdp` axis divides; 21,841 classes are odd."""
    parts = mesh.shape["fsdp"]
    divisible = [i for i, dimension in enumerate(shape) if dimension % parts == 0]
    if parts == 1 or math.prod(shape) < _MIN_ELEMENTS or not divisible:
        return NamedSharding(mesh, PartitionSpec())
    largest = max(divisible, key=lambda i: shape[i])
    return NamedSharding(mesh, PartitionSpec(*(None,) * largest, "fsdp"))


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
