"""Where a process stands among those of its run, by the environment.

Many processes are told of each other by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
JAX_PROCESS_ID, or by what JAX knows by itself: Cloud TPU pods, SLURM, Open MPI.
"""

import dataclasses
from collections.abc import Mapping

from pnet_jax.errors import UserError

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@dataclasses.dataclass(frozen=True)
class Place:
    """Which process of how many this is, and where process 0 listens (`host:port`)."""

    coordinator: str
    index: int
    count: int


def place_from_environment(environment: Mapping[str, str], timeout_secs: float) -> Place | None:
    """Where this process stands among many; None if it is the only one.

    Raises:
      UserError: if the environment says so in part only.
    """
    given = {name: environment[name] for name in _VARIABLES if environment.get(name)}
    if given and len(given) < len(_VARIABLES):
        absent = [name for name in _VARIABLES if name not in given]
        raise UserError(
            f"{next(iter(given))} is set, but {' and '.join(absent)} not; set "
            f"{', '.join(_VARIABLES)} in every process, or none of them."
        )
    if given:
        address, count, index = given.values()
        return _place(address, count, index)
    if environment.get("JAX_PLATFORMS") == "cpu" and "SLURM_JOB_ID" not in environment:
        # The processors of a pod's host may well be used alone.
        return None
    # JAX offers what it finds by `initialize` alone, which connects at once.
    from jax._src.clusters import ClusterEnv

    found = ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, None, int(timeout_secs)
    )
    if found[0] is None or not found[1] or found[1] < 2:
        return None
    return _place(found[0], str(found[1]), str(found[2]))


def _place(address: str, count: str, index: str) -> Place | None:
    if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
        raise UserError(
            f"JAX_NUM_PROCESSES = {count} and JAX_PROCESS_ID = {index} do not fit each other: "
            f"processes are numbered from 0 to one less than their number."
        )
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(
            f"JAX_COORDINATOR_ADDRESS = {address!r} cannot be read; write it as HOST:PORT, of the "
            f"machine of process 0."
        )
    return Place(address, int(index), int(count)) if int(count) > 1 else None
