"""Meshes from strings, batches that fit them, and batches on them."""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType

from pnet_jax.errors import UserError
from pnet_jax.parallel.mesh import batch_sharding, check_batch, make_mesh, replicated, to_devices


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ("data=-1,fsdp=1", (8, 1)),
        ("data=-1", (8, 1)),
        ("data=8", (8, 1)),
        ("fsdp=-1", (1, 8)),
        ("data=-1,fsdp=4", (2, 4)),
        ("fsdp=2, data=4", (4, 2)),
        ("data=8,fsdp=-1", (8, 1)),
    ],
)
def test_shapes(spec: str, shape: tuple[int, int]) -> None:
    mesh = make_mesh(spec)
    assert dict(mesh.shape) == {"data": shape[0], "fsdp": shape[1]}
    assert mesh.axis_names == ("data", "fsdp")
    assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)
    assert set(mesh.devices.flat) == set(jax.devices())


def test_some_of_the_devices() -> None:
    mesh = make_mesh("data=-1", jax.devices()[2:5])
    assert list(mesh.devices.flat) == jax.devices()[2:5]


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "data",
        "data=",
        "data=eight",
        "data=0",
        "data=-2",
        "data=-100,fsdp=-100",
        "data=1.5",
        "data=²",
        "model=8",
        "data=4,data=2",
        "data=4;fsdp=2",
        "data=8,",
    ],
)
def test_strings_that_cannot_be_read(spec: str) -> None:
    with pytest.raises(UserError) as caught:
        make_mesh(spec)
    assert str(caught.value) == (
        f"config.mesh = {spec!r} cannot be read; write it as 'data=-1,fsdp=1', where -1 takes all "
        f"devices that are left."
    )


def test_minus_one_twice() -> None:
    with pytest.raises(UserError) as caught:
        make_mesh("data=-1,fsdp=-1")
    assert str(caught.value) == (
        "config.mesh = 'data=-1,fsdp=-1' has -1 twice; only one axis can take what is left."
    )


@pytest.mark.parametrize("spec", ["data=4", "data=16", "data=3,fsdp=-1", "data=-1,fsdp=16"])
def test_sizes_that_do_not_fit(spec: str) -> None:
    with pytest.raises(UserError) as caught:
        make_mesh(spec)
    assert str(caught.value) == (
        f"config.mesh = {spec!r} does not fit 8 devices: the sizes must multiply to 8; "
        f"'data=-1,fsdp=1' always fits."
    )


@pytest.mark.parametrize("spec", ["data=-1", "data=2,fsdp=4"])
def test_batches_that_fit(spec: str) -> None:
    for size in (8, 16, 4096):
        check_batch("global_batch_size", size, make_mesh(spec))


@pytest.mark.parametrize(
    ("size", "fitting"), [(100, "96 or 104"), (4095, "4088 or 4096"), (9, "8 or 16"), (7, "8")]
)
def test_batches_that_do_not_fit(size: int, fitting: str) -> None:
    with pytest.raises(UserError) as caught:
        check_batch("eval_batch_size", size, make_mesh("data=2,fsdp=4"))
    assert str(caught.value) == (
        f"config.eval_batch_size = {size} cannot be split over 8 devices; {fitting} would fit, as "
        f"does any multiple of 8."
    )


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a mesh looks at of one of the chips of several TPU slices."""

    id: int
    slice_index: int
    platform: str = "tpu"
    device_kind: str = "TPU v4"
    core_on_chip: int = 0
    process_index: int = 0

    @property
    def coords(self) -> tuple[int, int, int]:
        return (self.id % 2, self.id // 2 % 2, 0)


def two_slices() -> list[Chip]:
    """Two slices of 2 x 2 chips, their chips mixed."""
    return [Chip(id=i, slice_index=i // 4) for i in (0, 4, 1, 5, 2, 6, 3, 7)]


@pytest.mark.parametrize(("spec", "shape"), [("data=-1", (8, 1)), ("data=2,fsdp=4", (2, 4))])
def test_fsdp_stays_in_a_slice(spec: str, shape: tuple[int, int]) -> None:
    mesh = make_mesh(spec, two_slices())
    assert mesh.devices.shape == shape
    slices = np.vectorize(lambda chip: chip.slice_index)(mesh.devices)
    # The first half of the data axis is one slice, the other half the other.
    assert [set(half.flat) for half in np.split(slices, 2)] == [{0}, {1}]
    assert len(set(mesh.devices.flat)) == 8


@pytest.mark.aot
@pytest.mark.parametrize("spec", ["data=-1", "data=4,fsdp=8", "data=2,fsdp=16"])
def test_two_slices_of_v5e(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "none",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }.items():
        monkeypatch.setenv(name, value)
    topology = topologies.get_topology_desc("v5e:4x4", platform="tpu", num_slices=2)
    mesh = make_mesh(spec, list(topology.devices))
    slices = np.vectorize(lambda chip: chip.slice_index)(mesh.devices)
    assert [set(half.flat) for half in np.split(slices, 2)] == [{0}, {1}]


def test_fsdp_over_slices() -> None:
    with pytest.raises(UserError) as caught:
        make_mesh("fsdp=8", two_slices())
    assert str(caught.value) == (
        "config.mesh = 'fsdp=8' does not fit 2 slices: only the data axis goes from one to "
        "another, so its size must be a multiple of 2."
    )


def batch(index: int) -> dict[str, np.ndarray]:
    image = np.full((16, 4, 4, 3), index, np.uint8)
    return {"image": image, "label": np.arange(16, dtype=np.int32) + 100 * index}


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_batches_arrive_in_order_and_all_of_them(count: int) -> None:
    sharding = batch_sharding(make_mesh("data=4,fsdp=2"))
    arrived = list(to_devices((batch(index) for index in range(count)), sharding))
    assert len(arrived) == count
    for index, arrays in enumerate(arrived):
        assert set(arrays) == {"image", "label"}
        for name, value in batch(index).items():
            assert arrays[name].dtype == value.dtype
            np.testing.assert_array_equal(arrays[name], value)


def test_each_device_has_its_samples() -> None:
    mesh = make_mesh("data=4,fsdp=2")
    (arrays,) = to_devices([batch(0)], batch_sharding(mesh))
    label = arrays["label"]
    assert label.sharding.is_equivalent_to(batch_sharding(mesh), 1)
    parts = {shard.device: shard.data.tolist() for shard in label.addressable_shards}
    assert [parts[device] for device in mesh.devices.flat] == [[2 * i, 2 * i + 1] for i in range(8)]


def test_transfers_are_one_batch_ahead() -> None:
    taken = []

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for index in range(4):
            taken.append(index)
            yield batch(index)

    stream = to_devices(batches(), replicated(make_mesh("data=8")))
    assert taken == []
    for expected in ([0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3]):
        next(stream)
        assert taken == expected
    assert list(stream) == []


def test_replicated() -> None:
    array = jax.device_put(np.arange(6.0), replicated(make_mesh("data=2,fsdp=4")))
    assert len(array.addressable_shards) == 8
    assert all(shard.data.shape == (6,) for shard in array.addressable_shards)
