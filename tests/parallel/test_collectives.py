"""Counting collectives: of a program compiled here, and in the spellings of other backends."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pnet_jax.parallel.collectives import Collective, collectives


def test_a_sum_over_devices_is_one_all_reduce():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    total = jax.jit(lambda x: x.sum(axis=0), in_shardings=split, out_shardings=whole)
    hlo = total.lower(jnp.zeros((16, 5))).compile().as_text()
    assert collectives(hlo) == [Collective("all-reduce", 1, 5 * 4)]


def test_pairs_and_tuples():
    hlo = """
      %ag = (bf16[2,3]{1,0}, bf16[8,3]{1,0}) all-gather-start(%x), dimensions={0}
      %done = bf16[8,3]{1,0} all-gather-done(%ag)
      %ar = (f32[10]{0:T(512)}, f32[4,2]{1,0}) all-reduce(%a, %b), to_apply=%sum
      ROOT %ar2 = f32[1]{0} all-reduce(%c), to_apply=%sum
    """
    assert collectives(hlo) == [
        Collective("all-reduce", 2, (10 + 8 + 1) * 4),
        Collective("all-gather", 1, 8 * 3 * 2),
    ]


def test_none():
    assert collectives("ENTRY %main { ROOT %x = f32[2]{0} add(%a, %a) }") == []
