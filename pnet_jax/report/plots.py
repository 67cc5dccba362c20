"""`curves.png`: loss, accuracy and learning rate of one run or of several stages side by side.

python -m pnet_jax.report.plots --runs pretrain=runs/a fine-tune=runs/b --out curves.png
"""

import argparse
import io
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from pnet_jax.errors import UserError
from pnet_jax.report import atomic
from pnet_jax.report.curves import Run, draw_curves
from pnet_jax.report.jsonl import read_records
from pnet_jax.report.summary import SUMMARY_FILE
from pnet_jax.report.writers import METRICS_FILE

_FORMATS = (".png", ".svg")


def plot_curves(runs: Mapping[str, Path], out: Path) -> None:
    """Draws the curves of `runs` (label -> run directory) into `out`, a .png or .svg file.

    Raises UserError for a directory without records and for another kind of file.
    """
    if out.suffix not in _FORMATS:
        raise UserError(f"Curves are drawn as {' or '.join(_FORMATS)}; {out} is neither.")
    loaded = [load_run(label, directory) for label, directory in runs.items()]
    picture = io.BytesIO()
    with warnings.catch_warnings():
        # A label in a script the font lacks is drawn as boxes: no reason to fail or to alarm.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure = draw_curves(loaded)
        # No creation date: the same records give the same file.
        metadata = {"Date": None} if out.suffix == ".svg" else {"Software": None}
        figure.savefig(picture, format=out.suffix[1:], dpi=150, metadata=metadata)
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic.replace_file(out, picture.getvalue())


def load_run(label: str, directory: Path) -> Run:
    """Reads a run's records, and its number of classes from its summary if there is one.

    Raises UserError if there are no records.
    """
    try:
        records = read_records(directory / METRICS_FILE)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{directory} is not a run directory: it has no {METRICS_FILE}. Give the --workdir of "
            "a training run."
        ) from error
    if not records:
        raise UserError(f"{directory / METRICS_FILE} has no records yet: let the run log a step.")
    return Run(
        label=label,
        train=[record for record in records if record.kind == "train"],
        evals=[record for record in records if record.kind == "eval"],
        num_classes=_num_classes(directory / SUMMARY_FILE),
    )


def _num_classes(summary_path: Path) -> int | None:
    try:
        num_classes = json.loads(summary_path.read_bytes())["facts"]["num_classes"]
    except (OSError, ValueError, LookupError, TypeError):
        return None  # a run that has not ended has no summary
    return num_classes if isinstance(num_classes, int) and num_classes > 0 else None


def _parse_runs(arguments: Sequence[str]) -> dict[str, Path]:
    runs: dict[str, Path] = {}
    for argument in arguments:
        label, separator, directory = argument.partition("=")
        if not separator or Path(argument).is_dir():  # a directory's name may hold a "="
            label, directory = Path(argument).resolve().name, argument
        if label in runs:
            raise UserError(f"Two runs are called {label!r}: name them, as in LABEL=DIR.")
        runs[label] = Path(directory)
    return runs


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code (2 for a user's mistake)."""
    parser = argparse.ArgumentParser(
        prog="python -m pnet_jax.report.plots",
        description="Draw loss, accuracy and learning rate of training runs, finished or not. Runs "
        "on equally many classes share a row; the dotted line is what guessing would reach.",
        epilog="example: --runs pretrain=runs/pretrain fine-tune=runs/finetune --out curves.png",
    )
    parser.add_argument(
        "--runs",
        nargs="+",
        required=True,
        metavar="[LABEL=]DIR",
        help="the --workdir of each training run, with the name to show (else the directory's)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the picture: a .png or .svg file"
    )
    arguments = parser.parse_args(argv)
    try:
        plot_curves(_parse_runs(arguments.runs), arguments.out)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
