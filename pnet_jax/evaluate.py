"""Exact evaluation, of the live state or of a checkpoint: every image of the split counts once.

    python -m pnet_jax.evaluate --workdir=DIR [--step=N] [--weights=ema|raw] [--json]

prints the accuracies and writes them to `DIR/evaluation_STEP_WEIGHTS.json`. On several hosts it is
started on each, as training is.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from pnet_jax import workdir as workdirs
from pnet_jax.checkpoint.manager import Checkpoints
from pnet_jax.config import Config
from pnet_jax.errors import TrainingError, UserError
from pnet_jax.parallel.distributed import join
from pnet_jax.report import atomic
from pnet_jax.run import Run


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


def evaluate_checkpoint(
    workdir: pathlib.Path,
    *,
    step: int | None = None,
    weights: str = "ema",
    data_dir: str | None = None,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """What a checkpoint scores on its run's evaluation split; also written into the work directory.

    Args:
      workdir: of the run.
      step: of the checkpoint; None takes the best one.
      weights: "ema", the averages that training evaluates, or "raw".
      data_dir: where the data set lies if not where the run had it.
      batch_size: of the evaluation if not the run's `eval_batch_size`.

    Returns:
      `step`, `weights`, `dataset`, `split`, and what `evaluate` returns.

    Raises:
      UserError: if there is no such run, checkpoint or data, or the batch does not fit the devices.
    """
    workdir = workdir.expanduser().absolute()
    config = _config_of(workdir)
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, data_dir=data_dir or config.data.data_dir),
        eval_batch_size=config.eval_batch_size if batch_size is None else batch_size,
        # This machine may have other devices than the one that trained.
        mesh="data=-1,fsdp=1",
    )
    config.validate()
    with Checkpoints(workdir) as checkpoints:
        chosen = checkpoints.choose(step)
        run = Run.of(config)
        ema, raw = checkpoints.restore_averages(chosen)
    scores = evaluate(
        run.program.eval_step(),
        jax.device_put({"ema": ema, "raw": raw}[weights], run.program.shardings.state.ema),
        jax.device_put(np.int32(chosen), run.program.shardings.whole),
        run.eval_stream(),
        num_examples=len(run.eval_records),
    )
    result = {
        "step": chosen,
        "weights": weights,
        "dataset": config.data.name,
        "split": config.data.eval_split,
        **scores,
    }
    if jax.process_index() == 0:
        content = json.dumps(result, indent=2) + "\n"
        atomic.replace_file(workdir / f"evaluation_{chosen}_{weights}.json", content.encode())
    return result


def _config_of(workdir: pathlib.Path) -> Config:
    return Config.of(ml_collections.ConfigDict(workdirs.read_config(workdir)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pnet_jax.evaluate",
        description="Evaluate a checkpoint on the evaluation split of its run, exactly.",
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="of the run")
    parser.add_argument("--step", type=int, help="of the checkpoint (default: the best one)")
    parser.add_argument(
        "--weights",
        choices=("ema", "raw"),
        default="ema",
        help="the averaged weights that training evaluates, or those of the step (default: ema)",
    )
    parser.add_argument("--data-dir", help="where the data set lies, if it has moved")
    parser.add_argument("--batch-size", type=int, help="if not the run's eval_batch_size")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a sentence")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates as the command line says and returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        with join(_config_of(args.workdir)):
            result = evaluate_checkpoint(
                args.workdir,
                step=args.step,
                weights=args.weights,
                data_dir=args.data_dir,
                batch_size=args.batch_size,
            )
            # One of the processes speaks for all.
            speaks = jax.process_index() == 0
    except (UserError, TrainingError) as error:
        print(f"pnet_jax: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    if not speaks:
        return 0
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        print(
            f"step {result['step']:,} ({result['weights']}): top-1 {result['top1']:.2%}, top-5 "
            f"{result['top5']:.2%}, loss {result['loss']:.4f} on {result['count']:,} images of "
            f"{result['dataset']}/{result['split']}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
