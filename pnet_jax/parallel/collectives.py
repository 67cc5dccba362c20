"""The collectives of a compiled program, read off its text."""

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

_BITS = {"pred": 8, "s8": 8, "u8": 8, "bf16": 16, "f16": 16, "s32": 32, "u32": 32, "f32": 32}
_BITS |= {"s4": 4, "u4": 4, "s16": 16, "u16": 16, "s64": 64, "u64": 64, "f64": 64}
_KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
# `%x = (f32[8]{0}, f32[4,2]{1,0}) all-reduce(...), replica_groups=...`; a pair of -start and -done
# is counted once.
_OPERATION = re.compile(rf"= (\(.*?\)|\S+) ({_KINDS})(-start)?\((.*)")
# Between slices XLA leaves the sums to the TPU runtime: each chip hands over its part, by a `send`
# that names the operation.
_BETWEEN_SLICES = re.compile(r"= \((\S+?), .*? send\(.*_xla_megascale_transfer_type=\"([A-Z_]+)\"")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_LISTED = re.compile(r"replica_groups=\{(\{[\d,{} ]*\})\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind: how many, and the bytes of what they return on one chip.

    `ici_bytes` and `dcn_bytes` are what one chip sends and receives for them, together, inside its
    slice and over the data centre's network, by rings inside and then between the slices.
    """

    kind: str
    count: int
    bytes: int
    ici_bytes: float
    dcn_bytes: float


def collectives(hlo: str, slices: Sequence[int]) -> list[Collective]:
    """The collectives in the text of a compiled module, by kind, the largest first.

    `slices` are the devices' slices in the order of their ids in the module.
    """
    found: dict[str, list[Collective]] = {}
    for shape, kind, start, attributes in _OPERATION.findall(hlo):
        arrays = [_bytes(dtype, dims) for dtype, dims in _ARRAY.findall(shape)]
        # The asynchronous all-gather and permute return their operand beside the result.
        halved = bool(start) and kind in ("all-gather", "collective-permute")
        size = max(arrays) if halved else sum(arrays)
        group = next(iter(_groups(attributes)), range(len(slices)))
        num_slices = len({slices[i] for i in group})
        inside = len(group) // num_slices
        ici, dcn = _moved(kind, size, inside), _moved(kind, size // inside, num_slices)
        found.setdefault(kind, []).append(Collective(kind, 1, size, ici, dcn))
    num_slices = len(set(slices))
    for shape, operation in _BETWEEN_SLICES.findall(hlo):
        kind = operation.lower().replace("_", "-")
        size = sum(_bytes(dtype, dims) for dtype, dims in _ARRAY.findall(shape))
        between = f"{kind} between slices"
        one = Collective(between, 1, size, 0.0, _moved(kind, size, num_slices))
        found.setdefault(between, []).append(one)
    totals = [
        Collective(
            kind,
            len(each),
            sum(one.bytes for one in each),
            sum(one.ici_bytes for one in each),
            sum(one.dcn_bytes for one in each),
        )
        for kind, each in found.items()
    ]
    return sorted(totals, key=lambda total: -total.bytes)


def _groups(attributes: str) -> list[list[int]]:
    """The devices that communicate with each other; none if all do."""
    if listed := _LISTED.search(attributes):
        groups = re.findall(r"\{([\d, ]*)\}", listed[1])
        return [[int(i) for i in group.split(",") if i.strip()] for group in groups]
    if iota := _IOTA.search(attributes):
        shape, dims, order = (
            [int(i) for i in text.split(",")] if text else None for text in iota.groups()
        )
        assert shape is not None
        assert dims is not None
        ids = np.arange(math.prod(dims)).reshape(dims)
        return ids.transpose(order or range(len(dims))).reshape(shape).tolist()
    return []


def _moved(kind: str, size: int, members: int) -> float:
    """Bytes that a member of a ring sends and receives, together, for a result of `size` bytes."""
    others = (members - 1) / members
    if kind == "all-reduce":
        return 4 * others * size  # reduced in parts, then gathered: each way twice
    if kind == "reduce-scatter":
        return 2 * others * size * members
    return 2 * others * size


def _bytes(dtype: str, dims: str) -> int:
    return _BITS.get(dtype, 0) * math.prod(int(d) for d in dims.split(",") if d) // 8
