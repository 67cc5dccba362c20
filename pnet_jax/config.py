"""The schema of a run: every field, its default, its type and what makes a run possible.

Configuration files start from `default_config()`, a `ConfigDict` of these defaults, and change
fields; `Config.of` makes frozen dataclasses of the result and `validate` checks what types cannot.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import ml_collections

from pnet_jax.fields import build, defaults, flatten, require


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Fields of `models.create_model`; None leaves the network's own value."""

    name: str = "parameternet_300m"
    width: float | None = None
    num_experts: int | None = None
    routing: str | None = None
    routing_ratio: float | None = None
    # How dynamic convolutions are computed: one of ops.dynamic_conv.FORMS.
    form: str | None = None
    drop_rate: float = 0.2
    drop_path_rate: float = 0.0
    # Groups of the batch with batch-norm statistics of their own; 1 = the whole global batch.
    bn_groups: int = 1
    # "batch" statistics in training, or the "running" ones, which freezes batch norm's statistics.
    bn_statistics: str = "batch"
    # Computes each block's activations again for the gradient instead of keeping them.
    remat: bool = False
    # Of the computation; parameters, statistics and logits are float32.
    dtype: str = "bfloat16"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """A TFDS data set of array_record shards, and how its images are cut."""

    name: str = "imagenet22k"
    data_dir: str = "~/tensorflow_datasets"
    train_split: str = "train"
    eval_split: str = "validation"
    label: str = "label"
    num_classes: int = 21841
    image_size: int = 224
    # Random-resized-crop takes this share of the image's area, at least and at most.
    crop_area_min: float = 0.08
    crop_area_max: float = 1.0
    # Evaluation takes the central square with this share of the image's shorter side.
    eval_crop: float = 0.875
    random_flip: bool = True
    # The floats made of the pixels: "imagenet", or what published weights were trained on,
    # "inception" or "efficientnet_lite".
    normalization: str = "imagenet"
    # Decoding threads of each host process; each fills a batch, so prefetch_batches of them work.
    num_threads: int = 16
    # Decoding processes beside each host process, in place of its threads; about one for each core
    # of the host where the progress line shows that training waits for input.
    num_workers: int = 0
    # Batches decoded ahead of the step.
    prefetch_batches: int = 4
    # Undecodable training images a run may meet (each is named and skipped) before it stops.
    max_corrupt_images: int = 100


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """What happens to training images on the device; all off. See docs/augment.md."""

    # RandAugment in timm's notation, such as "rand-m9-mstd0.5-inc1"; empty = none.
    rand_augment: str = ""
    # Probability that a rectangle is erased, and what with: noise of each "pixel", or a "const".
    random_erasing: float = 0.0
    erasing_mode: str = "pixel"
    # Of the beta distributions that shares are drawn from; 0 = no mixup, no CutMix.
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    # Probability of any mixing, and of CutMix rather than mixup where both are on.
    mix_prob: float = 1.0
    switch_prob: float = 0.5
    # One draw for a "batch", or one for each image ("elem").
    mix_mode: str = "batch"
    # Times that each image of a batch is in it, each time cut and augmented anew.
    repeats: int = 1


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay."""

    # Peak learning rate, for the global batch size of the same file.
    learning_rate: float = 1e-3
    end_learning_rate: float = 1e-5
    warmup_epochs: float = 5.0
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    # Norm the gradient is clipped to; 0 = not clipped.
    clip_norm: float = 5.0
    # Each layer's learning rate is that of the layer above times this (1 = the same for all).
    layer_decay: float = 1.0
    label_smoothing: float = 0.1


@dataclasses.dataclass(frozen=True)
class TemperatureConfig:
    """Of softmax routing, falling linearly (Chen et al. 2020, arXiv 1912.03458)."""

    start: float = 30.0
    end: float = 1.0
    epochs: float = 10.0


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When to save, and what to keep."""

    # A checkpoint is also written after each evaluation.
    every_steps: int = 5000
    keep_last: int = 2
    keep_best: int = 1


@dataclasses.dataclass(frozen=True)
class ProfileConfig:
    """What the profiler traces into the work directory's `profile`, for TensorBoard or xprof."""

    # The first step traced; 0 = none.
    first_step: int = 0
    num_steps: int = 5


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """How long a run waits before it says what is wrong."""

    # For all processes to start, or to come to where they wait for each other.
    start_secs: float = 300.0
    # Without a sign of life a process is gone, and the others end.
    silence_secs: float = 60.0
    # After a step this long the processes that the others wait for print what they are doing.
    stall_secs: float = 600.0
    # From SIGTERM to the end: what platforms give is half a minute.
    preemption_secs: float = 25.0


@dataclasses.dataclass(frozen=True)
class Config:
    """One training run."""

    seed: int = 0
    epochs: float = 90.0
    global_batch_size: int = 4096
    eval_batch_size: int = 4096
    # Evaluations happen after each this many epochs, and at the end.
    eval_every_epochs: float = 1.0
    log_every_steps: int = 100
    ema_decay: float = 0.9999
    mesh: str = "data=-1,fsdp=1"
    # Which parameters the fsdp axis splits: "NAMES=RULE; ..." with regular expressions over whole
    # names and the rules "fsdp" and "replicate"; the first that fits a parameter counts.
    sharding: str = ".*=fsdp"
    # Parts of a batch whose gradients are added up before the update.
    accumulate_steps: int = 1
    # The work directory of a run whose best checkpoint training starts from, with a new classifier.
    init_from: str | None = None
    # The classifier under init_from: "fresh", or "map", which takes the rows of the classes that
    # both runs have, by name.
    head: str = "fresh"
    # Where compiled programs are kept between runs; empty = nowhere.
    compilation_cache_dir: str = "~/.cache/pnet_jax/xla"
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    temperature: TemperatureConfig = TemperatureConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    distributed: DistributedConfig = DistributedConfig()
    profile: ProfileConfig = ProfileConfig()

    @classmethod
    def of(cls, config: ml_collections.ConfigDict) -> "Config":
        """The frozen form of a configuration, validated.

        Raises:
          UserError: for an unknown field (with the nearest name), a value of the wrong type, or a
            value that no run can have.
        """
        frozen = build(cls, config.to_dict(), prefix="config")
        frozen.validate()
        return frozen

    def validate(self) -> None:
        """Checks what can be known before any data or device is looked at."""
        values = flatten(self.to_dict())
        for wanted, fits, names in _RANGES:
            for name in names:
                value = values[name]
                good = value is None or fits(value)
                require(good, f"config.{name} is {value}; it must be {wanted}.")
        for name, choices in _CHOICES.items():
            *first, last = map(repr, choices)
            require(
                values[name] in choices,
                f"config.{name} is {values[name]!r}; it must be {', '.join(first)} or {last}.",
            )
        require(
            self.head == "fresh" or self.init_from is not None,
            "config.head = 'map' takes classes from another run; name it by config.init_from.",
        )
        require(
            self.global_batch_size % self.model.bn_groups == 0,
            f"config.model.bn_groups = {self.model.bn_groups} does not divide "
            f"config.global_batch_size = {self.global_batch_size}.",
        )
        require(
            self.global_batch_size % self.augment.repeats == 0,
            f"config.augment.repeats = {self.augment.repeats} does not divide "
            f"config.global_batch_size = {self.global_batch_size}.",
        )
        require(
            self.global_batch_size % self.accumulate_steps == 0,
            f"config.accumulate_steps = {self.accumulate_steps} does not divide "
            f"config.global_batch_size = {self.global_batch_size}.",
        )
        require(
            self.data.crop_area_min <= self.data.crop_area_max,
            f"config.data.crop_area_min = {self.data.crop_area_min:g} is above "
            f"config.data.crop_area_max = {self.data.crop_area_max:g}.",
        )
        require(
            self.optimizer.warmup_epochs <= self.epochs,
            f"config.optimizer.warmup_epochs = {self.optimizer.warmup_epochs:g} is longer than the "
            f"whole run (config.epochs = {self.epochs:g}).",
        )

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries of plain values."""
        return dataclasses.asdict(self)


# What a number must be, the test for it, and the fields; None is the network's own value.
_RANGES: tuple[tuple[str, Callable[[float], bool], tuple[str, ...]], ...] = (
    (
        "above 0",
        lambda value: 0 < value < math.inf,
        (
            "epochs",
            "global_batch_size",
            "eval_batch_size",
            "eval_every_epochs",
            "log_every_steps",
            "accumulate_steps",
            "model.width",
            "model.num_experts",
            "model.routing_ratio",
            "model.bn_groups",
            "data.num_classes",
            "data.image_size",
            "augment.repeats",
            "optimizer.epsilon",
            "optimizer.layer_decay",
            "temperature.start",
            "temperature.end",
            "checkpoint.every_steps",
            # Without a last checkpoint a killed run would be lost.
            "checkpoint.keep_last",
            "distributed.start_secs",
            "distributed.silence_secs",
            "distributed.stall_secs",
            "distributed.preemption_secs",
            "profile.num_steps",
        ),
    ),
    (
        "at least 0",
        lambda value: 0 <= value < math.inf,
        (
            "seed",
            "profile.first_step",
            "data.num_threads",
            "data.num_workers",
            "data.prefetch_batches",
            "data.max_corrupt_images",
            "augment.mixup_alpha",
            "augment.cutmix_alpha",
            "optimizer.learning_rate",
            "optimizer.end_learning_rate",
            "optimizer.warmup_epochs",
            "optimizer.weight_decay",
            "optimizer.clip_norm",
            "temperature.epochs",
            "checkpoint.keep_best",
        ),
    ),
    (
        "in [0, 1)",
        lambda value: 0 <= value < 1,
        (
            "ema_decay",
            "model.drop_rate",
            "model.drop_path_rate",
            "optimizer.beta1",
            "optimizer.beta2",
            "optimizer.label_smoothing",
        ),
    ),
    (
        "in (0, 1]",
        lambda value: 0 < value <= 1,
        ("data.crop_area_min", "data.crop_area_max", "data.eval_crop"),
    ),
    (
        "in [0, 1]",
        lambda value: 0 <= value <= 1,
        ("augment.random_erasing", "augment.mix_prob", "augment.switch_prob"),
    ),
)

# Fields that are one of a few words.
_CHOICES = {
    "head": ("fresh", "map"),
    "model.bn_statistics": ("batch", "running"),
    "model.dtype": ("float32", "bfloat16"),
    "data.normalization": ("imagenet", "inception", "efficientnet_lite"),
    "augment.erasing_mode": ("pixel", "const"),
    "augment.mix_mode": ("batch", "elem"),
}

# What may differ between two starts of one run: none of it changes the result (another mesh only
# adds up in another order).
MAY_CHANGE = frozenset(
    {
        "data.data_dir",
        "data.num_threads",
        "data.num_workers",
        "data.prefetch_batches",
        "data.max_corrupt_images",
        "compilation_cache_dir",
        "mesh",
        "sharding",
        "model.remat",
        "checkpoint.keep_last",
        "checkpoint.keep_best",
        "distributed.start_secs",
        "distributed.silence_secs",
        "distributed.stall_secs",
        "distributed.preemption_secs",
        "profile.first_step",
        "profile.num_steps",
    }
)


def default_config() -> ml_collections.ConfigDict:
    """All fields at their defaults.

    Not locked: what a configuration file misspells comes to `Config.of`, which names the field that
    was meant in one sentence; ml_collections takes a page for it.
    """
    return ml_collections.ConfigDict(defaults(Config()))


def fingerprint(config: Config) -> str:
    """Twelve hexadecimal digits that change with any field that can change the result."""
    fields = {k: v for k, v in flatten(config.to_dict()).items() if k not in MAY_CHANGE}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]
