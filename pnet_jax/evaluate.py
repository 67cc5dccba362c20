"""Exact evaluation, of the live state or of a checkpoint: every image of the split counts once.

    python -m pnet_jax.evaluate --workdir=DIR [--step=N] [--weights=ema|raw]
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np


def evaluate(
    eval_step: Callable[..., Any],
    variables: Any,
    step: jax.Array,
    batches: Iterable[Any],
    *,
    num_examples: int,
) -> dict[str, float]:
    """Loss and accuracies over a whole split.

    Args:
      eval_step: from `training.step.make_eval_step`.
      variables: `params` and `batch_stats`.
      step: of the training, which sets the routing temperature.
      batches: of the split, on the devices, filled up with examples of weight 0.
      num_examples: of the split.

    Returns:
      `top1` and `top5` in [0, 1], `loss` in nats, and `count`.

    Raises:
      RuntimeError: if the counts do not add up to the split's size.
    """
    # The sums stay on the device until the end: a transfer a batch would wait for the batch.
    parts = [eval_step(variables, step, batch) for batch in batches]
    parts = jax.device_get(parts)
    sums = {name: np.sum([part[name] for part in parts], dtype=np.float64) for name in parts[0]}
    if int(sums["count"]) != num_examples:
        raise RuntimeError(
            f"Evaluation counted {int(sums['count'])} images of a split of {num_examples}."
        )
    return {
        "loss": float(sums["loss"] / num_examples),
        "top1": float(sums["top1"] / num_examples),
        "top5": float(sums["top5"] / num_examples),
        "count": int(num_examples),
    }
