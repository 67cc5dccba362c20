"""A real training run that is small enough for tests, and the commands that a user types for it.

The fixtures to it are in `tiny_run_plugin.py`.
"""

import dataclasses
import os
import pathlib
import subprocess
import sys

NUM_CLASSES = 20
NUM_TRAIN = 200
NUM_EVAL = 45  # no multiple of the batch, nor is the training split
# The numbers of the images that are cut short, by split.
CORRUPT = {"train": (3, 77, 150), "validation": (9,)}
BATCH = 16
STEPS = 25
EVAL_STEPS = (12, 25)
SAVE_STEPS = (8, 12, 16, 24, 25)

# The static network compiles in half the time of the dynamic one, and a run is killed and resumed
# in the same way with either.
CONFIG = f"""
from pnet_jax.config import default_config

def get_config():
    config = default_config()
    config.model.name = "ghostnet_300m"
    config.model.width = 0.15
    config.model.dtype = "float32"
    config.data.name = "emoji"
    config.data.data_dir = DATA_DIR
    config.data.num_classes = {NUM_CLASSES}
    config.data.image_size = 32
    config.data.max_corrupt_images = 20
    config.global_batch_size = {BATCH}
    config.eval_batch_size = 32
    config.epochs = 2.0
    config.log_every_steps = 2
    config.ema_decay = 0.9
    config.optimizer.warmup_epochs = 0.5
    config.temperature.epochs = 1.0
    config.checkpoint.every_steps = 8
    # The tests' own, from the environment.
    config.compilation_cache_dir = ""
    return config
"""


def shell_environment(cache: pathlib.Path) -> dict[str, str]:
    """For commands: this process's own, on the CPU; programs are kept in `cache` by default."""
    defaults = {"JAX_COMPILATION_CACHE_DIR": str(cache / "xla")}
    settings = {
        "JAX_PLATFORMS": "cpu",
        # Compiling takes longer than all the steps.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    return defaults | dict(os.environ) | settings


@dataclasses.dataclass(frozen=True)
class Shell:
    """Runs the project's commands as a user does, each in a process of its own with one device."""

    config: pathlib.Path
    environment: dict[str, str]

    def training(self, workdir: pathlib.Path, *fields: str) -> list[str]:
        """The command that trains; `fields` are overrides such as `epochs=3`."""
        overrides = [f"--config.{field}" for field in fields]
        main = [sys.executable, "-m", "pnet_jax.main", f"--config={self.config}"]
        return [*main, f"--workdir={workdir}", *overrides]

    def evaluation(self, workdir: pathlib.Path, *arguments: str) -> list[str]:
        """The command that evaluates."""
        return [sys.executable, "-m", "pnet_jax.evaluate", f"--workdir={workdir}", *arguments]

    def run(self, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, with additions to the environment."""
        return subprocess.run(
            command, env=self.environment | environment, capture_output=True, text=True, check=False
        )

    def start(self, command: list[str], log: pathlib.Path) -> subprocess.Popen[bytes]:
        """Starts a command whose output goes to the file `log`."""
        with log.open("w") as file:
            return subprocess.Popen(command, env=self.environment, stdout=file, stderr=file)


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run that was never killed; nothing but evaluations may be added to it."""

    workdir: pathlib.Path
    stdout: str
    stderr: str
