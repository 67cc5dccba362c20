"""Which dimension of which array is split over the `fsdp` axis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from pnet_jax.errors import UserError
from pnet_jax.parallel.mesh import make_mesh
from pnet_jax.parallel.sharding import Rule, fsdp_sharding, parse_rules, plan_sharding


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((1280, 1000), P("fsdp")),
        ((960, 1280), P(None, "fsdp")),
        # 21,841 classes are odd, so that the smaller dimension is split.
        ((1280, 21841), P("fsdp")),
        ((21841, 1280), P(None, "fsdp")),
        ((21841,), P()),
        ((21841, 3), P()),
        # Experts, whose largest dimensions come last; a tie goes to the first.
        ((4, 1, 1, 960, 160), P(None, None, None, "fsdp")),
        ((4, 1, 1, 160, 160), P(None, None, None, "fsdp")),
        ((4, 5, 5, 1, 962), P("fsdp")),
        # Below 16,384 elements an array stays whole.
        ((16383,), P()),
        ((128, 127), P()),
        ((128, 128), P("fsdp")),
        ((16384,), P("fsdp")),
        ((), P()),
    ],
)
def test_the_largest_divisible_dimension_is_split(shape: tuple[int, ...], spec: P) -> None:
    mesh = make_mesh("data=2,fsdp=4")
    sharding = fsdp_sharding(mesh, shape)
    assert sharding.mesh == mesh
    assert sharding.spec == spec


def test_without_fsdp_everything_is_whole() -> None:
    for shape in ((1280, 1000), (16384,), ()):
        assert fsdp_sharding(make_mesh("data=8"), shape).spec == P()


def state():
    """Two parameters, with moments as optimizers keep them, and what is no parameter's."""
    params = {
        "stem": {"kernel": np.ones((256, 512), np.float32)},
        "classifier": {"kernel": np.ones((512, 1000), np.float32), "bias": np.ones(1000)},
    }
    return {
        "step": np.int32(0),
        "params": params,
        "opt_state": ({"mu": params, "nu": params, "count": np.int32(0)},),
        "ema": {"params": params, "batch_stats": {"stem": {"mean": np.ones(32768, np.float32)}}},
    }


def test_rules_are_read_in_their_order():
    assert parse_rules("classifier/.*=replicate; .*/kernel=fsdp;.*=replicate") == (
        Rule("classifier/.*", "replicate"),
        Rule(".*/kernel", "fsdp"),
        Rule(".*", "replicate"),
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "''"),
        (".*", "'.*'"),
        ("=fsdp", "'=fsdp'"),
        (".*=split", "'.*=split'"),
        ("a=fsdp;", "''"),
    ],
)
def test_rules_that_cannot_be_read(text: str, part: str):
    with pytest.raises(UserError) as caught:
        parse_rules(text)
    assert str(caught.value) == (
        f"config.sharding = {text!r} cannot be read at {part}; write it as "
        f"'classifier/.*=replicate; .*=fsdp'."
    )
    with pytest.raises(UserError, match=r"'\(' is no regular expression"):
        parse_rules("(=fsdp")


def test_the_first_rule_that_fits_the_whole_name_counts():
    mesh, whole = make_mesh("fsdp=8"), state()
    rules = parse_rules("kernel=replicate; classifier/.*=replicate; .*=fsdp")
    plan = plan_sharding(mesh, whole, whole["params"], rules)
    assert jax.tree.structure(plan.state) == jax.tree.structure(whole)
    moments = plan.state["opt_state"][0]
    for tree in (plan.state["params"], moments["mu"], moments["nu"], plan.state["ema"]["params"]):
        assert tree["stem"]["kernel"].spec == P(None, "fsdp")
        assert tree["classifier"]["kernel"].spec == P()
    for scalar in (plan.state["step"], moments["count"]):
        assert scalar.spec == P()
    assert plan.state["ema"]["batch_stats"]["stem"]["mean"].spec == P()
    # Names without the collections they lie in, one row a rule.
    assert [placed.name for placed in plan.parameters] == [
        "classifier/bias",
        "classifier/kernel",
        "stem/kernel",
    ]
    assert plan.table() == [
        {
            "names": "classifier/.*",
            "rule": "replicate",
            "arrays": "2",
            "of them split": "0",
            "parameters": "513,000",
            "on one device": "513,000",
        },
        {
            "names": ".*",
            "rule": "fsdp",
            "arrays": "1",
            "of them split": "1",
            "parameters": "131,072",
            "on one device": "16,384",
        },
    ]
    placed = jax.device_put(whole["params"], plan.state["params"])
    shards = placed["stem"]["kernel"].addressable_shards
    assert {shard.data.shape for shard in shards} == {(256, 64)}
    np.testing.assert_array_equal(placed["stem"]["kernel"], jnp.ones((256, 512)))


def test_a_parameter_without_a_rule():
    whole = state()
    with pytest.raises(UserError) as caught:
        plan_sharding(make_mesh("fsdp=8"), whole, whole["params"], parse_rules("stem/.*=fsdp"))
    assert str(caught.value) == (
        "config.sharding says nothing of the parameter classifier/bias; end it with '; .*=fsdp'."
    )


def test_arrays_and_shapes_have_the_same_plan():
    whole, mesh = state(), make_mesh("data=2,fsdp=4")
    shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, whole))
    rules = parse_rules(".*=fsdp")
    by_shape = plan_sharding(mesh, shapes, shapes["params"], rules)
    assert plan_sharding(mesh, whole, whole["params"], rules).state == by_shape.state
