"""All weights but the head's are taken over, or every difference is listed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from pnet_jax.checkpoint.transfer import match_classes, transfer
from pnet_jax.data.build.classes import class_names
from pnet_jax.errors import UserError
from pnet_jax.models.ghostnet import STAGES_300M, GhostNet

Flat = dict[tuple[str, ...], Any]


def variables(seed: int, num_classes: int = 5, **fields: Any) -> dict[str, Any]:
    """Random values for all parameters and statistics of a small network."""
    network = {"stages": STAGES_300M[:2], "width": 0.2, "num_experts": 2} | fields
    model = GhostNet(num_classes=num_classes, **network)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape)), dict(shapes))


def flat(tree: Any) -> Flat:
    return traverse_util.flatten_dict(tree)


@pytest.mark.parametrize("num_classes", [5, 7])
def test_only_the_head_is_fresh(num_classes: int) -> None:
    """Also where both have as many classes: they need not be the same ones."""
    fresh, pretrained = variables(0, num_classes), variables(1)
    merged, notes = transfer(fresh, pretrained)
    assert jax.tree.structure(merged) == jax.tree.structure(fresh)
    for path, leaf in flat(merged).items():
        source = fresh if path[1] == "classifier" else pretrained
        assert leaf.tobytes() == flat(source)[path].tobytes(), path
        assert leaf.dtype == np.float32
    assert sorted(notes) == [
        f"fresh: params/classifier/bias [{num_classes}]",
        f"fresh: params/classifier/kernel [1280, {num_classes}]",
    ]


def test_fresh_variables_may_be_on_devices() -> None:
    fresh = jax.tree.map(jnp.asarray, variables(0, 7))
    merged, _ = transfer(fresh, variables(1))
    np.testing.assert_array_equal(
        merged["params"]["classifier"]["kernel"], fresh["params"]["classifier"]["kernel"]
    )


def test_neither_side_is_changed() -> None:
    fresh, pretrained = variables(0, 7), variables(1)
    before = jax.tree.map(np.copy, (fresh, pretrained))
    merged, _ = transfer(fresh, pretrained)
    merged["params"]["conv_stem"] = {}
    jax.tree.map(np.testing.assert_array_equal, (fresh, pretrained), before)


def differences(fresh: Any, pretrained: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        transfer(fresh, pretrained)
    first, *lines = str(caught.value).splitlines()
    assert first == (
        f"config.init_from holds another network ({len(lines)} differences); give config.model the "
        f"name, width, routing and experts of that run:"
    )
    assert all(line.startswith("  ") for line in lines)
    return [line.strip() for line in lines]


def test_each_kind_of_difference_is_told() -> None:
    fresh, pretrained = flat(variables(0)), flat(variables(1))
    scale, mean = ("params", "bn1", "scale"), ("batch_stats", "bn1", "mean")
    del pretrained[scale]
    pretrained["params", "bn9", "scale"] = np.ones(3)
    pretrained[mean] = np.ones(9)
    shape = list(fresh[mean].shape)
    listed = differences(*(traverse_util.unflatten_dict(tree) for tree in (fresh, pretrained)))
    assert sorted(listed) == [
        "left over there: params/bn9/scale [3]",
        f"missing there: params/bn1/scale {shape}",
        f"wrong shape: batch_stats/bn1/mean is [9] there and {shape} here",
    ]


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({"num_experts": 4}, {"wrong shape"}),
        ({"num_experts": None}, {"missing there", "left over there"}),
        ({"routing": "softmax_linear"}, {"missing there", "wrong shape"}),
        ({"width": 0.4}, {"wrong shape"}),
        ({"stages": STAGES_300M[:3]}, {"left over there"}),
    ],
)
def test_another_network_is_refused_leaf_by_leaf(fields: dict[str, Any], kinds: set[str]) -> None:
    fresh, pretrained = variables(0), variables(1, **fields)
    ours, theirs = flat(fresh), flat(pretrained)
    expected = {
        "/".join(path)
        for path in ours.keys() | theirs.keys()
        if "classifier" not in path
        and (path not in ours or path not in theirs or ours[path].shape != theirs[path].shape)
    }
    listed = differences(fresh, pretrained)
    assert {line.split(": ")[1].split(" ")[0] for line in listed} == expected
    assert len(listed) == len(expected)
    assert {line.split(":")[0] for line in listed} >= kinds


def test_the_head_takes_the_rows_of_the_classes_that_are_there() -> None:
    """By name: the same names stand elsewhere there, and one is new."""
    rows = match_classes(["d", "new", "a"], ["a", "b", "c", "d", "e"])
    assert rows.tolist() == [3, -1, 0]
    fresh, pretrained = variables(0, 3), variables(1, 5)
    merged, notes = transfer(fresh, pretrained, rows)
    for leaf in ("kernel", "bias"):
        ours, theirs, new = (
            tree["params"]["classifier"][leaf] for tree in (merged, pretrained, fresh)
        )
        np.testing.assert_array_equal(ours[..., [0, 2]], theirs[..., [3, 0]])
        np.testing.assert_array_equal(ours[..., 1], new[..., 1])
    assert sorted(notes) == [
        "2 of 3 classes mapped: params/classifier/bias",
        "2 of 3 classes mapped: params/classifier/kernel",
    ]


def test_fall11_has_all_but_one_class_of_1k() -> None:
    ours = class_names("1k")
    rows = match_classes(ours, class_names("fall11"))
    assert (rows >= 0).sum() == 999
    assert [ours[i] for i in np.flatnonzero(rows < 0)] == ["n04399382"]
    assert [class_names("fall11")[i] for i in rows[:3]] == list(ours[:3])
    assert (match_classes(class_names("21kp-fall11"), class_names("fall11")) >= 0).all()
