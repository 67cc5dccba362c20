"""The device mesh from a string, and batches onto it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pnet_jax.errors import UserError

AXES = ("data", "fsdp")


def make_mesh(spec: str, devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh of `"data=-1,fsdp=1"`; -1 takes the devices that are left.

    Both axes split the batch; `fsdp` splits parameters and optimizer state as well. With several
    TPU slices `data` goes over all of them and `fsdp` stays inside one.

    Raises:
      UserError: if the string cannot be read or does not fit the devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = _parse(spec)
    fixed = int(np.prod([size for size in sizes.values() if size != -1]))
    free = [axis for axis, size in sizes.items() if size == -1]
    if free and len(devices) % fixed == 0:
        sizes[free[0]] = len(devices) // fixed
    if int(np.prod(list(sizes.values()))) != len(devices):
        raise UserError(
            f"config.mesh = {spec!r} does not fit {len(devices)} devices: the sizes must multiply "
            f"to {len(devices)}; 'data=-1,fsdp=1' always fits."
        )
    shape = tuple(sizes[axis] for axis in AXES)
    # Flax linen predates explicit sharding in types and breaks on meshes whose axes are Explicit.
    axis_types = (AxisType.Auto,) * len(AXES)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return jax.make_mesh(shape, AXES, axis_types=axis_types, devices=devices)
    if sizes["data"] % slices:
        raise UserError(
            f"config.mesh = {spec!r} does not fit {slices} slices: only the data axis goes from "
            f"one to another, so its size must be a multiple of {slices}."
        )
    inside = (sizes["data"] // slices, sizes["fsdp"])
    ordered = mesh_utils.create_hybrid_device_mesh(
        inside, (slices, 1), devices, allow_split_physical_axes=True
    )
    return Mesh(ordered, AXES, axis_types=axis_types)


def _parse(spec: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for part in spec.split(","):
        axis, _, size = part.strip().partition("=")
        if axis not in AXES or axis in sizes or not re.fullmatch(r"-1|[1-9][0-9]*", size):
            raise UserError(
                f"config.mesh = {spec!r} cannot be read; write it as 'data=-1,fsdp=1', where -1 "
                f"takes all devices that are left."
            )
        sizes[axis] = int(size)
    for axis in AXES:
        sizes.setdefault(axis, 1)
    if list(sizes.values()).count(-1) > 1:
        raise UserError(
            f"config.mesh = {spec!r} has -1 twice; only one axis can take what is left."
        )
    return sizes


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Samples over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch(field: str, size: int, mesh: Mesh) -> None:
    """Raises UserError if a global batch of `size` cannot be split evenly over the mesh."""
    devices = mesh.devices.size
    if size % devices:
        below, above = size // devices * devices, -(-size // devices) * devices
        fitting = f"{below} or {above}" if below else f"{above}"
        raise UserError(
            f"config.{field} = {size} cannot be split over {devices} devices; {fitting} would fit, "
            f"as does any multiple of {devices}."
        )


def to_devices(
    batches: Iterable[Mapping[str, np.ndarray]], sharding: NamedSharding
) -> Iterator[dict[str, Any]]:
    """Each process's local batches as global arrays, transferred one batch ahead of its use."""
    ahead = None
    for batch in batches:
        arrays = {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}
        if ahead is not None:
            yield ahead
        ahead = arrays
    if ahead is not None:
        yield ahead
