"""What stops a run before it does harm."""

import math

import numpy as np

from pnet_jax.errors import TrainingError


def check_finite(step: int, metrics: dict[str, float]) -> None:
    """Raises TrainingError if a metric of the steps up to `step` is not a number.

    It is called before each save, so that a checkpoint never holds a diverged state.
    """
    broken = [name for name, value in metrics.items() if not math.isfinite(value)]
    if broken:
        raise TrainingError(
            f"Training diverged: {' and '.join(broken)} stopped being a number at or before step "
            f"{step}. The last checkpoint is from before that and is kept; start again with a "
            f"lower config.optimizer.learning_rate or a longer warmup_epochs in a new work "
            f"directory."
        )


class CorruptImages:
    """Remembers which training images this process could not decode, up to a limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.indices: set[int] = set()

    def add(self, indices: np.ndarray) -> None:
        """Adds the records' indices, each counted once however many epochs meet it.

        Raises:
          TrainingError: above the limit.
        """
        self.indices.update(indices.tolist())
        if len(self.indices) > self.limit:
            raise TrainingError(
                f"{len(self.indices)} training images could not be decoded, more than "
                f"config.data.max_corrupt_images = {self.limit} allows; their names are in the log "
                f"above. Repair the data set or raise the limit."
            )
