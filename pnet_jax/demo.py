"""The whole story at laptop size: pretrain, fine-tune, train from scratch, export.

    python -m pnet_jax.demo --workdir demo_run

A ParameterNet-300M of reduced width learns 1,577 kinds of emoji, then their 96 groups from a fifth
of the pictures, once from its pretrained weights and once from scratch. Validation shows each
emoji as drawn by a team whose drawing of it was never trained on. Stopped at any point, the same
command goes on where it was.
"""

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import ml_collections

from pnet_jax import recipes
from pnet_jax.config import Config
from pnet_jax.convert.workdirs import export
from pnet_jax.errors import TrainingError, UserError
from pnet_jax.report.plots import plot_curves
from pnet_jax.report.tables import format_table, write_table
from pnet_jax.train import train

MODEL = "parameternet_300m"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pnet_jax.demo", description="Pretrain, fine-tune and export at laptop size."
    )
    parser.add_argument(
        "--workdir",
        type=pathlib.Path,
        default=pathlib.Path("demo_run"),
        help="where data, runs and results go (default: %(default)s)",
    )
    workdir = parser.parse_args(argv).workdir
    try:
        run_demo(workdir)
    except UserError as error:
        print(f"pnet_jax: {error}", file=sys.stderr)
        return 2
    except TrainingError as error:
        print(f"pnet_jax: {error}", file=sys.stderr)
        return 1
    return 0


def run_demo(workdir: pathlib.Path) -> None:
    """All stages, each continued if it was begun before, and the final table."""
    start = time.monotonic()
    stages = {
        "pretrain": _config(recipes.pretrain_22k(MODEL), recipes.demo_fine, workdir),
        "finetune": _config(
            recipes.finetune_1k(MODEL, init_from=str(workdir / "pretrain")),
            recipes.demo_coarse,
            workdir,
        ),
        "scratch": _config(recipes.scratch_1k(MODEL), recipes.demo_coarse, workdir),
    }
    titles = {
        "pretrain": "pretraining on fine classes",
        "finetune": "fine-tuning on coarse classes",
        "scratch": "coarse classes from scratch",
    }
    results = {}
    for number, (stage, config) in enumerate(stages.items(), start=1):
        print(f"\n== {number}/4 {titles[stage]}", flush=True)
        results[stage] = train(Config.of(config), workdir / stage)
    print("\n== 4/4 export to PyTorch", flush=True)
    exported = export(workdir / "finetune", workdir / f"{MODEL}.safetensors")
    print(f"{exported.path}: {exported.tensors} tensors under the published names")

    runs = {titles[stage]: workdir / stage for stage in stages}
    plot_curves(runs, workdir / "curves.png")
    rows = [_row(titles[stage], results[stage]) for stage in stages]
    write_table(workdir / "results.json", rows)
    print(f"\n{format_table(rows)}\n")
    minutes = (time.monotonic() - start) / 60
    print(
        f"Accuracy on drawings by teams never trained on for that emoji; {minutes:.1f} minutes.\n"
        f"curves        {workdir / 'curves.png'}\n"
        f"table         {workdir / 'results.json'}\n"
        f"checkpoints   {workdir}/STAGE/checkpoints\n"
        f"TensorBoard   tensorboard --logdir {workdir}\n"
        f"PyTorch file  {exported.path}"
    )


def _config(
    recipe: ml_collections.ConfigDict, demo: Any, workdir: pathlib.Path
) -> ml_collections.ConfigDict:
    config = recipes.at_size(recipe, "demo", demo)
    config.data.data_dir = str(workdir / "data")
    return config


def _row(title: str, summary: dict[str, Any]) -> dict[str, str]:
    final, classes = summary["eval"]["final"], summary["facts"]["num_classes"]
    return {
        "stage": title,
        "classes": f"{classes:,}",
        "training images": f"{summary['facts']['train_images']:,}",
        "epochs": f"{summary['facts']['epochs']:g}",
        "top-1": f"{final['eval/top1']:.2%}",
        "top-5": f"{final['eval/top5']:.2%}",
        "chance": f"{1 / classes:.2%}",
        "top-1 / chance": f"{final['eval/top1'] * classes:.0f}x",
    }


if __name__ == "__main__":
    sys.exit(main())
