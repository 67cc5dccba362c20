"""A network without batch norm through training, averages, checkpoints, transfer and export."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.checkpoint.manager import Checkpoints
from pnet_jax.checkpoint.transfer import transfer
from pnet_jax.config import CheckpointConfig, Config, DataConfig, ModelConfig, OptimizerConfig
from pnet_jax.convert import to_torch
from pnet_jax.convert.workdirs import export, import_weights
from pnet_jax.errors import UserError
from pnet_jax.models import create_model, init_variables
from pnet_jax.models.swin import Swin
from pnet_jax.parallel.mesh import batch_sharding, make_mesh, replicated
from pnet_jax.parallel.sharding import parse_rules, plan_sharding
from pnet_jax.program import model_of
from pnet_jax.training.optimizer import make_optimizer
from pnet_jax.training.state import create_state
from pnet_jax.training.step import Shardings, make_eval_step, make_train_step

CONFIG = Config(
    global_batch_size=8,
    ema_decay=0.9,
    model=ModelConfig(dtype="float32"),
    data=DataConfig(image_size=16),
    optimizer=OptimizerConfig(weight_decay=0.02),
)


def network(num_classes=5):
    return Swin(num_classes, embed_dim=8, depths=(1, 1), num_heads=2, drop_path_rate=0.1)


@pytest.fixture(scope="module")
def optimizer():
    return make_optimizer(CONFIG.optimizer, lambda step: 0.01)


@pytest.fixture(scope="module")
def shardings(optimizer):
    images = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(
        lambda: create_state(network().init(jax.random.key(0), images), optimizer)
    )
    mesh = make_mesh("data=1", jax.devices()[:1])
    plan = plan_sharding(mesh, shapes, shapes.params, parse_rules(".*=fsdp"))
    return Shardings(plan.state, batch_sharding(mesh), replicated(mesh))


@pytest.fixture(scope="module")
def batch(shardings):
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (8, 16, 16, 3), np.uint8),
        "label": np.int32(np.arange(8) % 5),
        "weight": np.ones(8, np.float32),
    }
    return jax.device_put(batch, shardings.batch)


@pytest.fixture(scope="module")
def trained(optimizer, shardings, batch):
    """The state after twelve steps on one batch, and each step's metrics."""
    model = network()
    variables = init_variables(model, jax.random.key(0))
    assert variables["batch_stats"] == {}
    state = jax.device_put(create_state(variables, optimizer), shardings.state)
    step = make_train_step(model, optimizer, CONFIG, shardings=shardings, steps_per_epoch=2.0)
    history = []
    for _ in range(12):
        state, metrics = step(state, batch)
        history.append(jax.device_get(metrics))
    assert step._cache_size() == 1
    return state, history


@pytest.fixture(scope="module")
def workdir(trained, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    with Checkpoints(directory, CheckpointConfig()) as checkpoints:
        checkpoints.save(12, trained[0], {"top1": 0.5})
    return directory


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_loss_falls(trained):
    state, history = trained
    losses = [metrics["loss"] for metrics in history]
    assert losses[0] == pytest.approx(np.log(5), abs=0.1)
    assert losses[-1] < 0.8 * losses[0]
    assert state.batch_stats == {}
    assert state.ema.keys() == {"params", "batch_stats"}
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.ema["params"], state.params)
    assert all(jax.tree.leaves(moved))


def test_evaluation_takes_the_averages(trained, shardings, batch):
    evaluate = make_eval_step(network(), CONFIG, shardings=shardings, steps_per_epoch=2.0)
    sums = evaluate(trained[0].ema, trained[0].step, batch)
    assert int(sums["count"]) == 8
    assert np.isfinite(float(sums["loss"]))


def test_a_checkpoint_comes_back(trained, workdir, shardings):
    state, _ = trained
    target = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        shardings.state,
    )
    with Checkpoints(workdir) as checkpoints:
        restored = checkpoints.restore(12, target)
        ema, raw = checkpoints.restore_averages(12)
    assert_equal(restored, state)
    assert_equal(ema, state.ema)
    assert_equal(raw, {"params": state.params, "batch_stats": {}})


def test_transfer_to_other_classes(trained, optimizer):
    fresh = init_variables(network(7), jax.random.key(1))
    merged, notes = transfer(fresh, jax.device_get(trained[0].ema))
    assert sorted(notes) == ["fresh: params/head/bias [7]", "fresh: params/head/kernel [16, 7]"]
    state = create_state(merged, optimizer)
    assert state.batch_stats == {}
    assert_equal(state.params["norm"], trained[0].ema["params"]["norm"])


def test_export_and_import(tmp_path):
    name, width = "swin_300m", 0.1
    model = create_model(name, num_classes=3, width=width)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    rng = np.random.default_rng(0)
    values = jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape)), shapes)
    variables = {"params": values["params"], "batch_stats": {}}
    run, start = tmp_path / "run", tmp_path / "start"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"model": {"name": name, "width": width}}))
    with Checkpoints(run, CheckpointConfig()) as checkpoints:
        checkpoints.save(12, variables | {"ema": variables}, None)

    done = export(run, tmp_path / "w.safetensors")
    assert (done.model, done.tensors) == (name, len(to_torch(name, variables)))
    assert_equal(import_weights(done.path, name, start, width=width), variables)
    with Checkpoints(start) as checkpoints:
        assert_equal(checkpoints.restore_averages(0)[0], variables)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        (
            "bn_groups",
            8,
            "config.model.bn_groups is 8, but swin_tiny has no batch norm; leave it at 1.",
        ),
        (
            "bn_statistics",
            "running",
            "config.model.bn_statistics is 'running', but swin_tiny has no batch norm; leave it "
            "at 'batch'.",
        ),
    ],
)
def test_settings_of_batch_norm_are_refused(field, value, sentence):
    fields = dataclasses.asdict(ModelConfig(name="swin_tiny"))
    assert model_of(fields, 10).num_classes == 10
    with pytest.raises(UserError) as error:
        model_of(fields | {field: value}, 10)
    assert str(error.value) == sentence
