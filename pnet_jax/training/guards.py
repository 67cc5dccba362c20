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
    """Counts the undecodable training images of this process, up to a limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0

    def add(self, weights: np.ndarray) -> None:
        """Counts the zeros among a local batch's weights; raises TrainingError above the limit."""
        self.count += int(np.count_nonzero(weights == 0))
        if self.count > self.limit:
            raise TrainingError(
                f"{self.count} training images could not be decoded, more than "
                f"config.data.max_corrupt_images = {self.limit} allows; their names are in the log "
                f"above. Repair the data set or raise the limit."
            )
