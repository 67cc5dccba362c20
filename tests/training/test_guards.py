"""What ends a run, and the sentence that it ends with."""

import math

import numpy as np
import pytest

from pnet_jax.errors import TrainingError
from pnet_jax.training.guards import CorruptImages, check_finite


def test_finite_metrics_pass() -> None:
    check_finite(7, {"loss": 1e30, "grad_norm": 0.0, "top1": -1.0})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_divergence(value: float) -> None:
    with pytest.raises(TrainingError) as caught:
        check_finite(120, {"loss": value, "top1": 0.5, "grad_norm": value})
    assert str(caught.value) == (
        "Training diverged: loss and grad_norm stopped being a number at or before step 120. The "
        "last checkpoint is from before that and is kept; start again with a lower "
        "config.optimizer.learning_rate or a longer warmup_epochs in a new work directory."
    )


def test_one_broken_metric_is_named_alone() -> None:
    with pytest.raises(TrainingError, match=r"^Training diverged: grad_norm stopped being a num"):
        check_finite(1, {"loss": 2.0, "grad_norm": math.inf})


def test_corrupt_images_up_to_the_limit() -> None:
    corrupt = CorruptImages(limit=3)
    corrupt.add(np.array([4, 9]))
    corrupt.add(np.array([], np.int64))
    corrupt.add(np.array([2]))
    # The next epoch meets the same ones.
    corrupt.add(np.array([9, 2, 4]))
    assert corrupt.indices == {2, 4, 9}
    with pytest.raises(TrainingError) as caught:
        corrupt.add(np.array([9, 5, 7]))
    assert str(caught.value) == (
        "5 training images could not be decoded, more than config.data.max_corrupt_images = 3 "
        "allows; their names are in the log above. Repair the data set or raise the limit."
    )


def test_a_limit_of_zero_stops_at_the_first() -> None:
    corrupt = CorruptImages(limit=0)
    corrupt.add(np.array([], np.int64))
    with pytest.raises(TrainingError, match=r"^1 training images could not be decoded"):
        corrupt.add(np.array([3]))
