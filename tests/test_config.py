"""A configuration is checked field by field, and every mistake ends in one sentence."""

import dataclasses
from typing import Any

import ml_collections
import pytest

from pnet_jax.config import (
    MAY_CHANGE,
    Config,
    DataConfig,
    ModelConfig,
    default_config,
    fingerprint,
)
from pnet_jax.errors import UserError
from pnet_jax.fields import flatten, suggest

FIELDS = flatten(Config().to_dict())


def changed(**fields: Any) -> ml_collections.ConfigDict:
    """The defaults with `section__field = value` changed, whatever the type."""
    config = default_config()
    with config.unlocked(), config.ignore_type():
        for name, value in fields.items():
            *sections, field = name.split("__")
            section = config
            for part in sections:
                section = section[part]
            section[field] = value
    return config


def complaint(config: ml_collections.ConfigDict) -> str:
    with pytest.raises(UserError) as caught:
        Config.of(config)
    return str(caught.value)


def test_defaults_make_a_valid_config() -> None:
    assert Config.of(default_config()) == Config()


def test_what_a_config_file_misspells_reaches_the_check() -> None:
    config = default_config()
    config.modle = "parameternet_600m"
    assert complaint(config) == "There is no field config.modle; did you mean 'model'?"


def test_config_files_cannot_set_another_type() -> None:
    config = default_config()
    with pytest.raises(TypeError):
        config.epochs = "ten"
    with pytest.raises(TypeError):
        config.model = "parameternet_600m"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"epoch": 3}, "There is no field config.epoch; did you mean 'epochs'?"),
        (
            {"model__num_expert": 3},
            "There is no field config.model.num_expert; did you mean 'num_experts'?",
        ),
        (
            {"optimizer__lerning_rate": 0.1},
            "There is no field config.optimizer.lerning_rate; did you mean 'learning_rate'?",
        ),
        ({"data__zzz": 3}, "There is no field config.data.zzz"),
    ],
)
def test_unknown_field(fields: dict[str, Any], sentence: str) -> None:
    assert complaint(changed(**fields)) == sentence


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"epochs": "ten"}, "config.epochs is 'ten', of type str; it must be of type float."),
        ({"seed": 1.5}, "config.seed is 1.5, of type float; it must be of type int."),
        ({"seed": True}, "config.seed is True, of type bool; it must be of type int."),
        ({"mesh": 8}, "config.mesh is 8, of type int; it must be of type str."),
        ({"epochs": None}, "config.epochs is None, of type NoneType; it must be of type float."),
        (
            {"data__random_flip": 1},
            "config.data.random_flip is 1, of type int; it must be of type bool.",
        ),
        (
            {"model__width": "wide"},
            "config.model.width is 'wide', of type str; it must be of type float.",
        ),
        ({"model": 3}, "config.model is 3, but it is a group of fields; set those."),
    ],
)
def test_wrong_type(fields: dict[str, Any], sentence: str) -> None:
    assert complaint(changed(**fields)) == sentence


def test_whole_numbers_are_accepted_for_floats() -> None:
    config = default_config()
    config.epochs = 30
    config.model.width = 1
    frozen = Config.of(config)
    assert (frozen.epochs, frozen.model.width) == (30.0, 1.0)
    assert type(frozen.epochs) is float
    assert type(frozen.model.width) is float
    assert fingerprint(frozen) == fingerprint(
        dataclasses.replace(Config(), epochs=30.0, model=ModelConfig(width=1.0))
    )


def test_fields_that_are_none_accept_values_of_their_type() -> None:
    config = default_config()
    assert config.model.num_experts is None
    assert config.init_from is None
    config.model.num_experts = 2
    config.model.routing = "softmax_linear"
    config.model.routing_ratio = 0.5
    config.init_from = "runs/a"
    with pytest.raises(TypeError):
        config.model.width = "wide"
    frozen = Config.of(config)
    assert frozen.init_from == "runs/a"
    assert frozen.model == ModelConfig(num_experts=2, routing="softmax_linear", routing_ratio=0.5)


ABOVE_0 = [
    "epochs",
    "global_batch_size",
    "eval_batch_size",
    "eval_every_epochs",
    "log_every_steps",
    "model.width",
    "model.num_experts",
    "model.routing_ratio",
    "model.bn_groups",
    "data.num_classes",
    "data.image_size",
    "optimizer.epsilon",
    "optimizer.layer_decay",
    "temperature.start",
    "temperature.end",
    "checkpoint.every_steps",
    "checkpoint.keep_last",
]
AT_LEAST_0 = [
    "seed",
    "data.num_threads",
    "data.prefetch_batches",
    "data.max_corrupt_images",
    "optimizer.learning_rate",
    "optimizer.end_learning_rate",
    "optimizer.warmup_epochs",
    "optimizer.weight_decay",
    "optimizer.clip_norm",
    "temperature.epochs",
    "checkpoint.keep_best",
]
BELOW_1 = [
    "ema_decay",
    "model.drop_rate",
    "model.drop_path_rate",
    "optimizer.beta1",
    "optimizer.beta2",
    "optimizer.label_smoothing",
]
SHARES = ["data.crop_area_min", "data.crop_area_max", "data.eval_crop"]


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        *[(name, 0, "above 0") for name in ABOVE_0],
        *[(name, -1, "at least 0") for name in AT_LEAST_0],
        *[(name, value, "in [0, 1)") for name in BELOW_1 for value in (1, -0.5)],
        *[(name, value, "in (0, 1]") for name in SHARES for value in (0, 1.5)],
        ("epochs", float("nan"), "above 0"),
        ("epochs", float("inf"), "above 0"),
        ("optimizer.learning_rate", float("nan"), "at least 0"),
    ],
)
def test_numbers_out_of_their_range(name: str, value: float, wanted: str) -> None:
    sentence = complaint(changed(**{name.replace(".", "__"): value}))
    assert sentence.startswith(f"config.{name} is {value}")
    assert sentence.endswith(f"; it must be {wanted}.")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, 0) for name in [*AT_LEAST_0, *BELOW_1]],
        *[(name, 1) for name in SHARES],
    ],
)
def test_ends_of_the_ranges_are_let_through(name: str, value: float) -> None:
    frozen = Config.of(changed(**{name.replace(".", "__"): value}))
    assert flatten(frozen.to_dict())[name] == value


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"model__dtype": "float16"},
            "config.model.dtype is 'float16'; it must be 'float32' or 'bfloat16'.",
        ),
        (
            {"data__normalization": "vgg"},
            "config.data.normalization is 'vgg'; it must be 'imagenet', 'inception' or "
            "'efficientnet_lite'.",
        ),
        (
            {"model__bn_statistics": "global"},
            "config.model.bn_statistics is 'global'; it must be 'batch' or 'running'.",
        ),
        (
            {"model__bn_groups": 3},
            "config.model.bn_groups = 3 does not divide config.global_batch_size = 4096.",
        ),
        (
            {"data__crop_area_min": 0.6, "data__crop_area_max": 0.5},
            "config.data.crop_area_min = 0.6 is above config.data.crop_area_max = 0.5.",
        ),
        (
            {"epochs": 4},
            "config.optimizer.warmup_epochs = 5 is longer than the whole run (config.epochs = 4).",
        ),
    ],
)
def test_values_that_no_run_can_have(fields: dict[str, Any], sentence: str) -> None:
    assert complaint(changed(**fields)) == sentence


def with_another_value(name: str) -> Config:
    """The defaults but for one field."""
    value = FIELDS[name]
    if isinstance(value, bool):
        other: Any = not value
    elif isinstance(value, int | float):
        other = value + 1
    else:
        other = f"{value}x"
    section, _, field = name.rpartition(".")
    if not section:
        return dataclasses.replace(Config(), **{field: other})
    inner = dataclasses.replace(getattr(Config(), section), **{field: other})
    return dataclasses.replace(Config(), **{section: inner})


@pytest.mark.parametrize("name", FIELDS)
def test_fingerprint_changes_with_what_can_change_the_result(name: str) -> None:
    same = fingerprint(with_another_value(name)) == fingerprint(Config())
    assert same == (name in MAY_CHANGE)


def test_the_kind_of_head() -> None:
    assert complaint(changed(head="kept")) == "config.head is 'kept'; it must be 'fresh' or 'map'."
    assert complaint(changed(head="map")).endswith("name it by config.init_from.")
    assert Config.of(changed(head="map", init_from="runs/a")).head == "map"


def test_fingerprint_form() -> None:
    assert len(fingerprint(Config())) == 12
    assert int(fingerprint(Config()), 16) >= 0
    assert fingerprint(Config()) == fingerprint(Config.of(default_config()))


def test_fields_that_may_change_exist() -> None:
    assert set(FIELDS) >= MAY_CHANGE


def test_flatten() -> None:
    assert flatten({"a": 1, "b": {"c": None, "d": {"e": "f"}}}) == {
        "a": 1,
        "b.c": None,
        "b.d.e": "f",
    }


def test_suggest() -> None:
    fields = [field.name for field in dataclasses.fields(DataConfig)]
    assert suggest("image_sise", fields) == "; did you mean 'image_size'?"
    assert suggest("xyz", fields) == ""
