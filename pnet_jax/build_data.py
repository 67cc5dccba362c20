"""The command line of the converter: tars, folders or shards to a set that training reads.

python -m pnet_jax.build_data --source=TARS --classes=fall11 --name=imagenet22k --val-per-class=50
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

from pnet_jax.data.build import Settings, build, verify
from pnet_jax.data.build.classes import RELEASES
from pnet_jax.data.build.convert import VERSION
from pnet_jax.errors import UserError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pnet_jax.build_data", description="Build a data set for training."
    )
    parser.add_argument(
        "--source", help="a folder of synset tars, class folders or webdataset shards, or one tar"
    )
    parser.add_argument("--classes", help=f"{', '.join(RELEASES)}, or a file with one class a line")
    parser.add_argument("--name", required=True, help="of the set, such as imagenet22k")
    parser.add_argument("--data-dir", type=pathlib.Path, default="~/tensorflow_datasets")
    parser.add_argument("--shards", type=int, default=1024, help="of the training split")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--resize-short", type=int, help="shrink the shorter side to so many pixels"
    )
    parser.add_argument(
        "--val-per-class", type=int, default=0, help="images held out of each class"
    )
    parser.add_argument("--validation-source", help="as --source, or a flat folder")
    parser.add_argument(
        "--validation-labels", help="for a flat folder: a class, or FILE CLASS, a line"
    )
    parser.add_argument("--verify", action="store_true", help="check a finished set and stop")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Builds or verifies, and returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        if args.verify:
            directory = args.data_dir.expanduser() / args.name / VERSION
            print(f"{directory}: {verify(directory):,} examples, all as written")
            return 0
        if not (args.source and args.classes):
            raise UserError("Pass both --source and --classes; --help explains them.")
        settings = Settings(
            source=args.source,
            classes=args.classes,
            name=args.name,
            shards=args.shards,
            resize_short=args.resize_short,
            val_per_class=args.val_per_class,
            validation_source=args.validation_source,
            validation_labels=args.validation_labels,
        )
        print(build(settings, args.data_dir, processes=args.processes))
    except UserError as error:
        print(f"pnet_jax: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pnet_jax: Interrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
