"""Compiling for TPUs that are not there: XLA's own figures of a step, for one chip."""

import contextlib
import dataclasses
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
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


class DoesNotFit(UserError):
    """The program needs more memory than a chip has."""


def tpu_devices(topology: str, num_slices: int = 1) -> list[jax.Device]:
    """Descriptions of the chips of one or more slices of a topology such as `v5e:2x2`.

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
    options: dict[str, Any] = {"chip_config_name": "megacore"} if topology[:3] == "v4:" else {}
    if num_slices > 1:
        options["num_slices"] = num_slices
    try:
        return list(topologies.get_topology_desc(topology, platform="tpu", **options).devices)
    except Exception as error:  # libtpu raises several kinds, jaxlib's own among them
        sentence = str(error).splitlines()[0]
        raise UserError(
            f"The topology {topology} cannot be described ({sentence}); install libtpu with "
            f"pip install 'pnet_jax[tpu]' and take a topology that exists, such as v5e:2x2."
        ) from error


def compile_step(step: Any, *arguments: Any, devices: Sequence[jax.Device]) -> Compiled:
    """Compiles a jitted function for the devices of its mesh, in the mesh's order.

    Raises:
      DoesNotFit: if the program needs more memory than the chips have.
    """
    start = time.monotonic()
    try:
        with _uncached():
            compiled = step.lower(*arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        if "hbm" not in str(error).lower() and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        sizes = re.search(r"Used [^.]*\.\d+\w of [^.]*\.\d+\w hbm", str(error))
        raise DoesNotFit(
            f"The step does not fit ({sizes[0] if sizes else 'out of HBM'}); take a smaller "
            f"--global-batch-size, more chips, or more fsdp in config.mesh."
        ) from error
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    return Compiled(
        flops=cost["flops"],
        bytes_accessed=cost["bytes accessed"],
        temp_bytes=memory.temp_size_in_bytes,
        argument_bytes=memory.argument_size_in_bytes,
        collectives=collectives(
            compiled.as_text(), [getattr(device, "slice_index", None) or 0 for device in devices]
        ),
        compile_secs=round(time.monotonic() - start, 1),
    )


@contextlib.contextmanager
def _uncached() -> Iterator[None]:
    """Keeps programs out of the compilation cache, which cannot give them back without a chip."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, math.inf)
    try:
        yield
    finally:
        jax.config.update(name, before)


def bytes_on_a_chip(tree: Any) -> int:
    """What a tree of ShapeDtypeStructs with shardings takes on each chip."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def largest_batch(room: Callable[[int], float | None], *, start: int, step: int) -> int:
    """The largest multiple of `step` that fits, to within 5%, or 0 if `step` does not.

    What a batch takes grows with it in almost a straight line, which leads there from any batch
    that fits in a few compilations.

    Args:
      room: how many times a batch there is room for, or None if it does not fit. Whatever is
        smaller than a batch that fits is taken to fit, too.
      start: where to begin.
      step: what batches are multiples of.
    """
    low, high = 0, math.inf
    size = max(step, start // step * step)
    while max(1.05 * low, low + step - 1) < size < high:
        times = room(size)
        if times is None:
            high = size
            size = (low + size) // 2
        else:
            low = size
            size = int(min(0.99 * times * size, (low + high) / 2))
        size = size // step * step
    return low
