"""Every file in configs/ is a run that can start, full size and demo size."""

import importlib.util
import pathlib

import pytest

from pnet_jax.config import AugmentConfig, Config, fingerprint
from pnet_jax.data.emoji.builder import label_names
from pnet_jax.errors import UserError
from pnet_jax.models import list_models
from pnet_jax.run import build_model

FILES = sorted((pathlib.Path(__file__).parent.parent / "configs").glob("*.py"))


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_are_there():
    names = {path.stem for path in FILES}
    assert names >= {
        *("pnet300m_22k", "pnet600m_22k", "pnet300m_1k", "pnet600m_1k"),
        *("pnet300m_1k_ft", "pnet600m_1k_ft", "ghostnet300m_22k", "ghostnet300m_1k"),
        *("efficientnetv2_b0_22k", "efficientnetv2_b0_1k"),
        *("efficientnetv2_b0_dynamic_22k", "efficientnetv2_b0_dynamic_1k"),
        *("swin_tiny_22k", "swin_300m_22k", "swin_300m_dynamic_22k"),
        *("swin_tiny_1k", "swin_300m_1k", "swin_300m_dynamic_1k"),
    }


@pytest.mark.parametrize("size", ["full", "demo"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_batches_can_be_split_over_eight_devices(path, size):
    """As a host of TPUs or GPUs has them."""
    config = Config.of(load(path).get_config(size))
    assert config.global_batch_size % 8 == config.eval_batch_size % 8 == 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("size", ["full", "demo"])
def test_is_valid_and_names_its_own_command(path, size):
    module = load(path)
    config = Config.of(module.get_config(size))
    assert config.model.name in list_models()
    build_model(config)
    assert f"--config=configs/{path.name} " in module.__doc__
    classes = {"imagenet22k": 21841, "imagenet2012": 1000}
    if size == "full":
        assert config.data.num_classes == classes[config.data.name]
        assert config.data.image_size == 224
    else:
        assert config.data.name == "emoji"
        assert config.augment == AugmentConfig()
        assert config.data.num_classes == len(label_names()[config.data.label])
    assert (config.init_from is not None) == path.stem.endswith("_ft")


def test_no_two_runs_are_the_same():
    prints = [fingerprint(Config.of(load(path).get_config("full"))) for path in FILES]
    assert len(set(prints)) == len(prints)


def test_unknown_variant():
    with pytest.raises(UserError, match="no variant 'huge'"):
        load(FILES[0]).get_config("huge")


def test_recipes_of_the_paper():
    """The cells that the paper states."""
    pretrain, scratch, finetune = (
        Config.of(load(FILES[0].with_name(f"pnet300m_{kind}.py")).get_config())
        for kind in ("22k", "1k", "1k_ft")
    )
    assert (pretrain.epochs, scratch.epochs, finetune.epochs) == (90, 300, 30)
    assert finetune.optimizer.layer_decay == 0.5
    assert pretrain.augment.random_erasing > 0
    assert scratch.augment.random_erasing > 0
    assert finetune.augment.random_erasing == 0
    assert pretrain.temperature.start == 30
    assert pretrain.temperature.epochs == 10
