"""The training recipes, as changes to the defaults of `config.py`; the files in `configs/` put
them to networks.

Known cells come from ParameterNet (arXiv 2306.14525, section 4); what the paper leaves open stands
in from the recipes it says it follows and is marked "stand-in". Small networks are hurt by strong
mixing of images (GhostNetV3, TinyViT): only training from scratch mixes, and little.
"""

from collections.abc import Callable

import ml_collections

from pnet_jax.config import default_config
from pnet_jax.errors import UserError

_RAND_AUGMENT = "rand-m9-mstd0.5-inc1"
_RANDOM_ERASING = 0.25

# The demo set: 1,577 kinds of emoji, in 96 groups.
_DEMO_FINE = 1577
_DEMO_COARSE = 96


def pretrain_22k(model: str) -> ml_collections.ConfigDict:
    """ImageNet-22K (fall11: 21,841 classes), 90 epochs at 224 px."""
    config = default_config()
    config.model.name = model
    config.epochs = 90.0
    config.global_batch_size = 4096  # stand-in
    config.optimizer.learning_rate = 1e-3  # stand-in
    config.optimizer.warmup_epochs = 5.0  # stand-in
    config.optimizer.weight_decay = 0.05  # stand-in
    config.augment.rand_augment = _RAND_AUGMENT  # stand-in
    config.augment.random_erasing = _RANDOM_ERASING  # erasing as in the paper; stand-in: how often
    return config


def scratch_1k(model: str) -> ml_collections.ConfigDict:
    """ImageNet-1K from scratch, 300 epochs at 224 px."""
    config = default_config()
    config.model.name = model
    _imagenet_1k(config)
    config.epochs = 300.0
    config.global_batch_size = 1024  # stand-in
    config.optimizer.learning_rate = 1e-3  # stand-in
    config.optimizer.warmup_epochs = 20.0  # stand-in
    config.optimizer.weight_decay = 0.05  # stand-in
    config.augment.rand_augment = _RAND_AUGMENT  # stand-in
    config.augment.random_erasing = _RANDOM_ERASING  # erasing as in the paper; stand-in: how often
    config.augment.mixup_alpha = 0.2  # stand-in
    return config


def finetune_1k(model: str, init_from: str) -> ml_collections.ConfigDict:
    """ImageNet-1K from 22K weights, 30 epochs; layer decay 0.5 and no erasing as in the paper."""
    config = default_config()
    config.model.name = model
    _imagenet_1k(config)
    config.init_from = init_from
    config.epochs = 30.0
    config.global_batch_size = 1024  # stand-in
    config.optimizer.learning_rate = 5e-4  # stand-in: 2.5e-4 for 512 images (TinyViT)
    config.optimizer.warmup_epochs = 5.0  # stand-in
    config.optimizer.weight_decay = 1e-8  # stand-in (TinyViT)
    config.optimizer.layer_decay = 0.5
    config.augment.rand_augment = _RAND_AUGMENT  # stand-in
    config.model.bn_statistics = "running"  # stand-in: frozen batch norm (TinyViT)
    # Experts and routers are trained by now.
    config.temperature.start = 1.0
    return config


def _imagenet_1k(config: ml_collections.ConfigDict) -> None:
    config.data.name = "imagenet2012"
    config.data.num_classes = 1000
    config.checkpoint.every_steps = 2500


def at_size(
    config: ml_collections.ConfigDict,
    size: str,
    demo: Callable[[ml_collections.ConfigDict], None],
) -> ml_collections.ConfigDict:
    """The recipe as it is for "full", shrunk by `demo` for "demo".

    Raises:
      UserError: for any other size.
    """
    if size not in ("full", "demo"):
        raise UserError(
            f"There is no variant {size!r} of this configuration; append ':demo' or nothing."
        )
    if size == "demo":
        demo(config)
    return config


def demo_fine(config: ml_collections.ConfigDict) -> None:
    """Many fine classes on a laptop: the whole demo set at half the width, 90,000 images."""
    _demo(config)
    config.data.num_classes = _DEMO_FINE
    config.epochs = 1.8
    config.eval_every_epochs = 0.9
    config.optimizer.warmup_epochs = 0.1
    config.temperature.epochs = 0.3


def demo_coarse(config: ml_collections.ConfigDict) -> None:
    """Few classes and few images: the groups of the emoji, and a fifth of the pictures."""
    _demo(config)
    config.data.label = "coarse_label"
    config.data.num_classes = _DEMO_COARSE
    config.data.train_split = "train[:20%]"
    config.epochs = 1.2
    config.eval_every_epochs = 0.6
    config.optimizer.warmup_epochs = 0.25
    config.temperature.epochs = 0.3
    if config.optimizer.layer_decay < 1:
        # After so short a pretraining the lower layers have much to learn as well.
        config.optimizer.layer_decay = 0.8


def _demo(config: ml_collections.ConfigDict) -> None:
    config.data.name = "emoji"
    config.data.image_size = 48
    # A pointing hand or an arrow means something else in the mirror.
    config.data.random_flip = False
    # Emoji fill the picture: smaller parts of it often show nothing.
    config.data.crop_area_min = 0.8
    config.data.eval_crop = 1.0
    config.model.width = 0.5
    # CPUs have no fast bfloat16.
    config.model.dtype = "float32"
    # In a few hundred steps there is nothing to overfit to.
    config.model.drop_rate = 0.0
    config.model.drop_path_rate = 0.0
    config.augment.rand_augment = ""
    config.augment.random_erasing = 0.0
    config.augment.mixup_alpha = 0.0
    config.global_batch_size = 128
    config.eval_batch_size = 256
    config.optimizer.learning_rate = 2e-3
    config.log_every_steps = 20
    config.ema_decay = 0.98
    config.checkpoint.every_steps = 200
