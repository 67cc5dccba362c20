"""What a TPU chip can do, and how long a step takes there at least."""

import dataclasses

from pnet_jax.errors import UserError

# The published rates, https://cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e (read 2026-11).


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of one chip; `ici` is that of all its links in both directions.

    `dcn` is the chip's share of its host's network card, in both directions.
    """

    hbm_bytes: int
    flops_per_sec: float  # bfloat16
    hbm_bytes_per_sec: float
    ici_bytes_per_sec: float
    dcn_bytes_per_sec: float


CHIPS = {
    "v4": Chip(32 << 30, 275e12, 1.228e12, 600e9, 12.5e9),
    "v5e": Chip(16 << 30, 197e12, 0.819e12, 400e9, 6.25e9),
    "v5p": Chip(95 << 30, 459e12, 2.765e12, 1200e9, 12.5e9),
    "v6e": Chip(32 << 30, 918e12, 1.638e12, 800e9, 25e9),
}


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as `v5e:2x2`. Raises UserError if its rates are not known."""
    name = topology.partition(":")[0]
    if name not in CHIPS:
        raise UserError(f"There are no rates of a {name} chip; there are of {', '.join(CHIPS)}.")
    return CHIPS[name]


@dataclasses.dataclass(frozen=True)
class Roofline:
    """The least seconds of a step by each of its limits; `secs` by all of them.

    Multiplications and HBM traffic go on at the same time. Communication is added, though some of
    it overlaps: a step takes at least the larger of the two first, and not much more than `secs` if
    the kernels are as good as the chip.
    """

    compute_secs: float
    memory_secs: float
    ici_secs: float
    dcn_secs: float

    @property
    def secs(self) -> float:
        """Of the whole step."""
        return max(self.compute_secs, self.memory_secs) + self.ici_secs + self.dcn_secs

    @property
    def limit(self) -> str:
        """What takes the longest."""
        names = {
            "multiplications": self.compute_secs,
            "HBM traffic": self.memory_secs,
            "communication": self.ici_secs + self.dcn_secs,
        }
        return max(names, key=lambda name: names[name])


def roofline(
    chip: Chip, *, flops: float, hbm_bytes: float, ici_bytes: float, dcn_bytes: float
) -> Roofline:
    """Of one chip's FLOPs, HBM traffic, and bytes that it sends and receives in a step."""
    return Roofline(
        compute_secs=flops / chip.flops_per_sec,
        memory_secs=hbm_bytes / chip.hbm_bytes_per_sec,
        ici_secs=ici_bytes / chip.ici_bytes_per_sec,
        dcn_secs=dcn_bytes / chip.dcn_bytes_per_sec,
    )
