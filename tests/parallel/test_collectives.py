"""Counting collectives: of a program compiled here, and in the spellings of other backends."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pnet_jax.parallel.collectives import Collective, collectives


def test_a_sum_over_devices_is_one_all_reduce():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    total = jax.jit(lambda x: x.sum(axis=0), in_shardings=split, out_shardings=whole)
    hlo = total.lower(jnp.zeros((16, 5))).compile().as_text()
    # 5 floats round a ring of 8: 7/8 of them each way, to reduce and to gather.
    assert collectives(hlo, [0] * 8) == [Collective("all-reduce", 1, 20, 4 * 7 / 8 * 20, 0)]


def test_pairs_and_tuples():
    hlo = """
      %ag = (bf16[2,3]{1,0}, bf16[8,3]{1,0}) all-gather-start(%x), dimensions={0}
      %done = bf16[8,3]{1,0} all-gather-done(%ag)
      %ar = (f32[10]{0:T(512)}, f32[4,2]{1,0}) all-reduce(%a, %b), to_apply=%sum
      ROOT %ar2 = f32[1]{0} all-reduce(%c), to_apply=%sum
    """
    found = collectives(hlo, [0])
    assert [(each.kind, each.count, each.bytes) for each in found] == [
        ("all-reduce", 2, (10 + 8 + 1) * 4),
        ("all-gather", 1, 8 * 3 * 2),
    ]
    assert [each.ici_bytes for each in found] == [0, 0]  # one device


@pytest.mark.parametrize(
    ("groups", "members", "num_slices"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", 4, 1),
        ("{{0,4},{1,5},{2,6},{3,7}}", 2, 2),
        ("[2,4]<=[8]", 4, 1),
        ("[4,2]<=[2,4]T(1,0)", 2, 2),
        ("[1,8]<=[8]", 8, 2),
        ("{}", 8, 2),
    ],
)
def test_groups_inside_and_between_slices(groups, members, num_slices):
    """Devices 0 to 3 are one slice, 4 to 7 another."""
    hlo = f"%ar = f32[32]{{0}} all-reduce(%a), replica_groups={groups}, to_apply=%sum"
    (found,) = collectives(hlo, [0] * 4 + [1] * 4)
    inside = members // num_slices
    assert found.ici_bytes == 4 * (inside - 1) / inside * 128
    # Each member takes its part of what the slice has reduced.
    assert found.dcn_bytes == 4 * (num_slices - 1) / num_slices * 128 / inside


def test_sums_that_the_runtime_takes_between_slices():
    """As compiled for two slices of v5e: each chip hands over its part of the slice's sum."""
    hlo = """
      %ar = f32[32]{0} all-reduce(%a), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%sum
      %send = (bf16[2,8,128]{2,1,0:T(8,128)(2,1)}, u32[], token[]) send(%b, %t), channel_id=122, \
is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2}x{0:3}",\
_xla_megascale_transfer_type="ALL_REDUCE"}
      %sent = token[] send-done(%send), channel_id=122, is_host_transfer=true
    """
    between, inside = collectives(hlo, [0] * 4 + [1] * 4)
    assert between == Collective("all-reduce between slices", 1, 4096, 0, 4 / 2 * 4096)
    assert (inside.kind, inside.bytes, inside.dcn_bytes) == ("all-reduce", 128, 0)


def test_rings():
    hlo = """
      %ag = f32[32]{0} all-gather(%x), replica_groups=[1,4]<=[4], dimensions={0}
      %rs = f32[8]{0} reduce-scatter(%y), replica_groups=[1,4]<=[4], dimensions={0}
    """
    gathered, scattered = collectives(hlo, [0] * 4)
    # Both have 128 bytes in all, of which three quarters come from others.
    assert gathered.ici_bytes == scattered.ici_bytes == 2 * 3 / 4 * 128


def test_none():
    assert collectives("ENTRY %main { ROOT %x = f32[2]{0} add(%a, %a) }", [0]) == []
