"""The collectives of a compiled program, read off its text."""

import dataclasses
import math
import re
from collections import Counter

_BITS = {"pred": 8, "s8": 8, "u8": 8, "bf16": 16, "f16": 16, "s32": 32, "u32": 32, "f32": 32}
_BITS |= {"s4": 4, "u4": 4, "s16": 16, "u16": 16, "s64": 64, "u64": 64, "f64": 64}
_KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
# `%x = (f32[8]{0}, f32[4,2]{1,0}) all-reduce(...)`; a pair of -start and -done is counted once.
_OPERATION = re.compile(rf"= (\(.*?\)|\S+) ({_KINDS})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind: how many, and the bytes of what they return on one chip."""

    kind: str
    count: int
    bytes: int


def collectives(hlo: str) -> list[Collective]:
    """The collectives in the text of a compiled module, the largest first."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for shape, kind, start in _OPERATION.findall(hlo):
        arrays = [_bytes(dtype, dims) for dtype, dims in _ARRAY.findall(shape)]
        # The asynchronous all-gather and permute return their operand beside the result.
        halved = bool(start) and kind in ("all-gather", "collective-permute")
        counts[kind] += 1
        sizes[kind] += max(arrays) if halved else sum(arrays)
    return [Collective(kind, counts[kind], size) for kind, size in sizes.most_common()]


def _bytes(dtype: str, dims: str) -> int:
    return _BITS.get(dtype, 0) * math.prod(int(d) for d in dims.split(",") if d) // 8
