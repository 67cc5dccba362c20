"""The training and evaluation steps of a small ParameterNet, on one device and on eight."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.augment.normalize import normalize
from pnet_jax.config import (
    AugmentConfig,
)
from pnet_jax.models import init_variables
from pnet_jax.parallel import sharding as sharding_rules
from pnet_jax.parallel.collectives import Collective, collectives
from pnet_jax.parallel.mesh import make_mesh
from pnet_jax.training.step import make_eval_step
from tests.training.trainer import (
    CONFIG,
    NUM_CLASSES,
    STEPS_PER_EPOCH,
    Batch,
    Trainer,
    network,
    trainer,
)


@pytest.fixture(scope="module")
def variables() -> Any:
    return jax.tree_util.tree_map_with_path(
        # Residual branches start at scale zero, where much of the network would have no gradient.
        lambda path, leaf: np.ones_like(leaf) if path[-1].key == "scale" else leaf,
        jax.device_get(init_variables(network(), jax.random.key(0))),
    )


@pytest.fixture(scope="module")
def one(variables: Any) -> Trainer:
    return trainer(make_mesh("data=1", jax.devices()[:1]), variables)


@pytest.fixture(scope="module")
def eight(variables: Any) -> Trainer:
    return trainer(make_mesh("data=8"), variables)


@pytest.fixture(scope="module")
def split(variables: Any) -> Iterator[Trainer]:
    """Parameters over eight devices, small ones too: this network has hardly any large ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding_rules, "_MIN_ELEMENTS", 64)
        yield trainer(make_mesh("fsdp=8"), variables)


@pytest.fixture(scope="module")
def frozen(variables: Any) -> Trainer:
    """Batch norm by its running statistics, so that examples do not know of each other."""
    mesh = make_mesh("data=1", jax.devices()[:1])
    return trainer(mesh, variables, bn_statistics="running")


@pytest.fixture
def batch(rng: np.random.Generator) -> Batch:
    return {
        "image": rng.integers(0, 256, (16, 16, 16, 3), np.uint8),
        "label": np.int32(np.arange(16) % NUM_CLASSES),
        "weight": np.ones(16, np.float32),
    }


def assert_equal(a: Any, b: Any) -> None:
    """Bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


def assert_close(a: Any, b: Any, *, rtol: float, atol: float) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(left, right, rtol=rtol, atol=atol)


def test_the_reference_form_trains_alike(one: Trainer, variables: Any, batch: Batch) -> None:
    """Twenty steps with every dynamic convolution as it is defined: the same losses."""
    grouped = trainer(make_mesh("data=1", jax.devices()[:1]), variables, form="grouped")
    _, expected = grouped.run(batch, steps=20)
    _, history = one.run(batch, steps=20)
    losses, expected_losses = ([each["loss"] for each in h] for h in (history, expected))
    assert expected_losses[-1] < 0.9 * expected_losses[0]
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)


def test_the_loss_falls_on_one_batch(one: Trainer, batch: Batch) -> None:
    state, history = one.run(batch, steps=20)
    losses = [metrics["loss"] for metrics in history]
    assert losses[0] == pytest.approx(np.log(NUM_CLASSES), abs=0.2)
    assert losses[-1] < 0.6 * losses[0]
    assert history[-1]["top1"] >= 0.7
    assert int(state.step) == 20
    assert state.step.dtype == jnp.int32


def test_two_runs_are_equal_bit_for_bit(one: Trainer, batch: Batch) -> None:
    (state, history), (again, history_again) = one.run(batch, steps=4), one.run(batch, steps=4)
    assert_equal(state, again)
    assert_equal(history, history_again)


def test_the_state_is_donated(one: Trainer, batch: Batch) -> None:
    state = one.new_state()
    one.train_step(state, jax.device_put(batch, one.shardings.batch))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_one_program_for_all_temperatures(one: Trainer, batch: Batch) -> None:
    _, history = one.run(batch, steps=8)
    # From 30 to 1 in two epochs of 2.5 steps.
    np.testing.assert_allclose(
        [metrics["temperature"] for metrics in history],
        [30.0, 24.2, 18.4, 12.6, 6.8, 1.0, 1.0, 1.0],
        rtol=1e-5,
    )
    assert one.train_step._cache_size() == 1


def test_the_temperature_is_that_of_the_step(one: Trainer, batch: Batch) -> None:
    """The same weights and images at step 0 and, cooler and otherwise mirrored, at step 4."""
    later = one.new_state()
    later = later.replace(step=jax.device_put(jnp.int32(4), one.shardings.whole))
    _, metrics = one.train_step(later, jax.device_put(batch, one.shardings.batch))
    _, history = one.run(batch)
    assert float(metrics["temperature"]) == pytest.approx(6.8)
    assert float(metrics["loss"]) != history[0]["loss"]
    assert one.train_step._cache_size() == 1


def test_the_guard_on_transfers_is_one_that_bites(one: Trainer, batch: Batch) -> None:
    one.run(batch)
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match=r"[Dd]isallowed"):
        one.train_step(one.new_state(), batch)


def test_eight_devices_compute_what_one_does(one: Trainer, eight: Trainer, batch: Batch) -> None:
    (state, history), (wide, wide_history) = one.run(batch, steps=3), eight.run(batch, steps=3)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(wide))
    assert_close(wide_history, history, rtol=1e-5, atol=1e-6)
    assert_close(wide, state, rtol=1e-5, atol=2e-6)
    assert eight.train_step._cache_size() == 1


@pytest.mark.slow
def test_augmented_steps_go_on_alike_on_other_devices(variables: Any, batch: Batch) -> None:
    """Two steps on one device and two more on eight are the four steps on one, all augmented."""
    augment = AugmentConfig(
        rand_augment="rand-m9-mstd0.5-n1-p1-inc1",
        random_erasing=0.5,
        mixup_alpha=0.2,
        cutmix_alpha=1.0,
        mix_mode="elem",
    )
    config = dataclasses.replace(CONFIG, augment=augment)
    one = trainer(make_mesh("data=1", jax.devices()[:1]), variables, config)
    eight = trainer(make_mesh("data=4,fsdp=2"), variables, config)
    expected, history = one.run(batch, steps=4)
    assert all(np.isfinite(metrics["loss"]) for metrics in history)
    state, _ = one.run(batch, steps=2)
    state = jax.device_put(jax.device_get(state), eight.shardings.state)
    for number in (2, 3):
        state, metrics = eight.train_step(state, jax.device_put(batch, eight.shardings.batch))
        assert_close(jax.device_get(metrics), history[number], rtol=1e-4, atol=1e-5)
    assert_close(state.params, expected.params, rtol=1e-3, atol=1e-4)


def test_split_parameters_change_nothing(eight: Trainer, split: Trainer, batch: Batch) -> None:
    (state, history), (sharded, sharded_history) = eight.run(batch, steps=3), split.run(batch, 3)
    assert_close(sharded_history, history, rtol=1e-5, atol=1e-6)
    assert_close(sharded, state, rtol=1e-5, atol=2e-6)
    leaves = jax.tree.leaves(sharded)
    for leaf, wanted in zip(leaves, jax.tree.leaves(split.shardings.state), strict=True):
        assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim)
    # Parameters, averages and both moments: an eighth of all but the smallest on each device.
    on_one = sum(leaf.addressable_shards[0].data.size for leaf in leaves)
    assert on_one < 0.2 * sum(leaf.size for leaf in leaves)
    assert split.train_step._cache_size() == 1


def test_the_average_follows_parameters_and_statistics(one: Trainer, batch: Batch) -> None:
    state, _ = one.run(batch)
    value = {"params": state.params, "batch_stats": state.batch_stats}
    # At step 0 the average forgets nine tenths.
    value = jax.device_get(value)
    expected = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, one.variables, value)
    assert_close(state.ema, expected, rtol=1e-5, atol=1e-7)
    before, after = one.variables["batch_stats"], value["batch_stats"]
    changed = jax.tree.map(lambda old, new: np.any(old != new), before, after)
    # Mean and variance of stem, four halves of ghost modules, and the last convolution.
    assert jax.tree.leaves(changed) == [True] * 12


def test_four_parts_of_a_batch_make_its_update(variables: Any, batch: Batch) -> None:
    """With eight groups of batch norm on two devices: one for each part on each device."""
    mesh = make_mesh("data=2", jax.devices()[:2])
    batch = batch | {"weight": np.float32(np.arange(16) % 5 != 0)}
    outcomes = []
    for accumulate_steps in (1, 4):
        config = dataclasses.replace(
            CONFIG,
            accumulate_steps=accumulate_steps,
            model=dataclasses.replace(CONFIG.model, bn_groups=8),
        )
        # Dropout's masks are those of a part.
        made = trainer(mesh, variables, config, bn_groups=8, drop_rate=0.0)
        outcomes.append(made.run(batch, steps=3))
    (state, history), (parts_state, parts_history) = outcomes
    assert_close(parts_history, history, rtol=2e-5, atol=1e-7)
    assert_close(parts_state, state, rtol=1e-4, atol=2e-6)


def traffic(made: Trainer, batch: Batch) -> dict[str, Collective]:
    """The collectives of the compiled step by their kind."""
    on_devices = jax.device_put(batch, made.shardings.batch)
    hlo = made.train_step.lower(made.new_state(), on_devices).compile().as_text()
    return {found.kind: found for found in collectives(hlo, [0] * 8)}


def test_statistics_of_each_device_leave_gradients_to_be_exchanged(
    variables: Any, batch: Batch
) -> None:
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, bn_groups=8))
    found = traffic(trainer(make_mesh("data=8"), variables, config, bn_groups=8), batch)
    assert found.keys() == {"all-reduce"}
    # Gradients, what the running statistics need, and a few sums.
    size = sum(4 * leaf.size for leaf in jax.tree.leaves(variables))
    assert size <= found["all-reduce"].bytes < 1.01 * size + 1000


def test_split_parameters_are_gathered_once(split: Trainer, batch: Batch) -> None:
    params = split.shardings.state.params
    count = sum(not leaf.is_fully_replicated for leaf in jax.tree.leaves(params))
    assert count >= 10
    assert traffic(split, batch)["all-gather"].count == count


def test_rematerialisation_changes_no_number(one: Trainer, variables: Any, batch: Batch) -> None:
    again = trainer(make_mesh("data=1", jax.devices()[:1]), variables, remat=True)
    (state, history), (again_state, again_history) = one.run(batch, 2), again.run(batch, 2)
    assert_close(again_history, history, rtol=1e-5, atol=1e-7)
    assert_close(again_state, state, rtol=1e-4, atol=2e-6)


def test_frozen_statistics_stay(frozen: Trainer, batch: Batch) -> None:
    state, _ = frozen.run(batch, steps=3)
    assert_equal(state.batch_stats, frozen.variables["batch_stats"])


def weighted(batch: Batch, weight: Any) -> Batch:
    return batch | {"weight": np.float32(weight)}


def test_metrics_are_means_over_the_weights(one: Trainer, batch: Batch) -> None:
    """Weights do not reach the logits, so that two complementary halves make up the whole."""
    half = np.float32(np.arange(16) < 6)
    _, (whole,) = one.run(batch)
    _, (some,) = one.run(weighted(batch, half))
    _, (others,) = one.run(weighted(batch, 1 - half))
    for name in ("loss", "top1"):
        assert (6 * some[name] + 10 * others[name]) / 16 == pytest.approx(whole[name], rel=1e-5)
    _, (double,) = one.run(weighted(batch, np.full(16, 2.0)))
    assert double["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    assert double["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-5)


def test_labels_of_weight_zero_count_nowhere(one: Trainer, batch: Batch) -> None:
    """Corrupt images have weight 0: their labels change neither the loss nor a gradient."""
    weight = np.float32(np.arange(16) % 4 != 0)
    labels = np.where(weight == 0, 9, batch["label"]).astype(np.int32)
    state, history = one.run(weighted(batch, weight))
    relabelled, relabelled_history = one.run(weighted(batch | {"label": labels}, weight))
    assert_equal(relabelled_history, history)
    assert_equal(relabelled, state)


def test_pixels_of_weight_zero_count_in_the_batch_statistics_alone(
    one: Trainer, frozen: Trainer, batch: Batch
) -> None:
    """An image of weight 0 is still one of those that batch norm takes mean and variance over.

    Through these it moves the other images' loss and gradients a little; without them, not at all.
    """
    weight = np.float32(np.arange(16) != 5)
    black = weighted(
        batch | {"image": batch["image"] * np.uint8(weight)[:, None, None, None]}, weight
    )
    for trainer_, equal in ((one, False), (frozen, True)):
        state, (metrics,) = trainer_.run(weighted(batch, weight))
        changed, (changed_metrics,) = trainer_.run(black)
        assert (changed_metrics["loss"] == metrics["loss"]) == equal
        assert changed_metrics["loss"] == pytest.approx(metrics["loss"], rel=0.02)
        if equal:
            assert_close(changed, state, rtol=1e-6, atol=1e-9)


def test_a_batch_of_weight_zero_has_no_gradient(one: Trainer, batch: Batch) -> None:
    state, (metrics,) = one.run(weighted(batch, np.zeros(16)))
    assert metrics["loss"] == metrics["grad_norm"] == metrics["top1"] == 0.0
    decayed = one.variables["params"]["classifier"]["kernel"] * (1 - 0.01 * 0.02)
    np.testing.assert_allclose(state.params["classifier"]["kernel"], decayed, rtol=1e-6)
    np.testing.assert_array_equal(
        state.params["bn1"]["scale"], one.variables["params"]["bn1"]["scale"]
    )


def test_evaluation_sums_are_exact(eight: Trainer, rng: np.random.Generator) -> None:
    """37 examples in batches of 16: the last is filled up by 11; two images were not decodable."""
    images = rng.integers(0, 256, (48, 16, 16, 3), np.uint8)
    labels = np.int32(rng.integers(0, NUM_CLASSES, 48))
    labels[[4, 20]] = -1
    weight = np.float32(np.arange(48) < 37)
    labels[42:] = -1  # what fills up counts nowhere, whatever its label
    state = eight.new_state().replace(step=jax.device_put(jnp.int32(4), eight.shardings.whole))
    # Weights that tell images apart.
    bias = jax.device_put(jnp.linspace(-0.02, 0.02, NUM_CLASSES), eight.shardings.whole)
    state.ema["params"]["classifier"]["bias"] = bias
    eval_step = make_eval_step(
        eight.model, CONFIG, shardings=eight.shardings, steps_per_epoch=STEPS_PER_EPOCH
    )
    sums = []
    for start in (0, 16, 32):
        part = slice(start, start + 16)
        rows = {"image": images[part], "label": labels[part], "weight": weight[part]}
        on_devices = jax.device_put(rows, eight.shardings.batch)
        with jax.transfer_guard("disallow"):
            sums.append(eval_step(state.ema, state.step, on_devices))
    sums = jax.device_get(sums)
    totals = {name: sum(part[name] for part in sums) for name in sums[0]}
    assert eval_step._cache_size() == 1

    apply = jax.jit(lambda v, x: eight.model.apply(v, x, train=False, temperature=6.8))
    logits = np.float64(apply(jax.device_get(state.ema), normalize(images[:37])))
    order = np.argsort(-logits, axis=1)
    truth = labels[:37, None]
    known = np.flatnonzero(labels[:37] >= 0)
    log_normalizer = np.log(np.exp(logits).sum(axis=1))
    losses = log_normalizer[known] - logits[known, labels[known]]
    assert totals["count"] == 37
    assert totals["top1"] == (order[:, :1] == truth).sum()
    assert totals["top5"] == (order[:, :5] == truth).any(axis=1).sum()
    assert 0 < totals["top1"] < totals["top5"] < 35
    assert totals["loss"] == pytest.approx(losses.sum(), rel=1e-5)
    assert [part["count"] for part in sums] == [16, 16, 5]
