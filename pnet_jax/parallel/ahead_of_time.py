"""Compiling for TPUs that are not there: XLA's own figures of a step, for one chip."""

import dataclasses
import os
import re
import time
from typing import Any

import jax

from pnet_jax.errors import UserError
from pnet_jax.parallel.collectives import Collective, collectives


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled program by XLA's own figures, all for one chip.

    `bytes_accessed` is HBM traffic a run; kernels of this project add what they say of themselves.
    """

    flops: float
    bytes_accessed: float
    temp_bytes: int
    argument_bytes: int
    collectives: list[Collective]
    compile_secs: float


def tpu_devices(topology: str) -> list[jax.Device]:
    """Descriptions of the chips of a topology such as `v5e:2x2`.

    Raises:
      UserError: if libtpu is not installed or does not know the topology.
    """
    # Or libtpu looks for the machine's own TPU, and for a second process that may hold it.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "none")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    if not re.fullmatch(r"v\d+[a-z]*:\d+x\d+(x\d+)?", topology):
        raise UserError(f"--topology={topology} cannot be read; write it as v5e:2x2 or v4:2x2x1.")
    # A v4 chip's two cores work as one.
    options = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    try:
        return list(topologies.get_topology_desc(topology, platform="tpu", **options).devices)
    except Exception as error:  # libtpu raises several kinds, jaxlib's own among them
        sentence = str(error).splitlines()[0]
        raise UserError(
            f"The topology {topology} cannot be described ({sentence}); install libtpu with "
            f"pip install 'pnet_jax[tpu]' and take a topology that exists, such as v5e:2x2."
        ) from error


def compile_step(step: Any, *arguments: Any) -> Compiled:
    """Compiles a jitted function for the devices that the arguments' shardings name.

    Raises:
      UserError: if the program does not fit into the chips' memory.
    """
    start = time.monotonic()
    try:
        compiled = step.lower(*arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        if "hbm" not in str(error).lower() and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        sizes = re.search(r"Used [^.]*\.\d+\w of [^.]*\.\d+\w hbm", str(error))
        raise UserError(
            f"The step does not fit ({sizes[0] if sizes else 'out of HBM'}); take a smaller "
            f"--global-batch-size, more chips, or more fsdp in config.mesh."
        ) from error
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    return Compiled(
        flops=cost["flops"],
        bytes_accessed=cost["bytes accessed"],
        temp_bytes=memory.temp_size_in_bytes,
        argument_bytes=memory.argument_size_in_bytes,
        collectives=collectives(compiled.as_text()),
        compile_secs=round(time.monotonic() - start, 1),
    )
