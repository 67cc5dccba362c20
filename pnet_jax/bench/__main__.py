"""The command line of the benchmarks: `python -m pnet_jax.bench --help` lists them.

Times of two contenders are taken in turns in one process; the ratio is the median of the ratios of
neighbours.
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Sequence

import jax
import tqdm

from pnet_jax.bench import augmentation, input, layers, steps
from pnet_jax.bench.timing import interleaved, machine, median_ratio, use_cores
from pnet_jax.data import emoji, generated
from pnet_jax.data.datasets import open_dataset
from pnet_jax.errors import UserError
from pnet_jax.report.tables import format_table, write_table


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pnet_jax.bench", description="Measure this project on this machine."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    convolutions = commands.add_parser(
        "dynamic-conv", help="every form in every layer shape of a network, forward and backward"
    )
    convolutions.add_argument("--model", default="parameternet_300m", help="default: %(default)s")
    convolutions.add_argument("--match", default="", help="only layers with this in their name")
    for name, kind in (("train-step", "training"), ("eval-step", "evaluation")):
        step = commands.add_parser(name, help=f"a whole {kind} step against another network's")
        step.add_argument("--model", default="parameternet_300m", help="default: %(default)s")
        step.add_argument("--form", help="of its dynamic convolutions (default: auto)")
        step.add_argument("--against", help="another network, or the same with another form")
        step.add_argument("--against-form", help="of that one's dynamic convolutions")
        step.add_argument(
            "--against-routers-off",
            action="store_true",
            help="that one mixes its experts evenly: what routers cost",
        )
    for command in commands.choices.values():
        command.add_argument(
            "--batch-size", type=_positive, default=16, help="default: %(default)s"
        )
    images = commands.add_parser(
        "input", help="what an image costs from the disk to the device, and whether it is the limit"
    )
    images.add_argument("--name", help="a data set (default: one of ImageNet's size is generated)")
    images.add_argument("--data-dir", default="~/tensorflow_datasets", help="where it lies")
    images.add_argument("--split", default="train", help="default: %(default)s")
    images.add_argument("--label", default="label", help="default: %(default)s")
    images.add_argument(
        "--images", type=_positive, default=400, help="to measure (default: %(default)s)"
    )
    images.add_argument(
        "--workers", type=_positive, nargs="*", default=[1, 2], help="to try (default: 1 2)"
    )
    images.add_argument(
        "--images-per-sec",
        type=float,
        default=20_000.0,
        help="what the accelerators of this host take (default: %(default)s, a v5e-8 host)",
    )
    for command in list(commands.choices.values()):
        command.add_argument(
            "--rounds", type=_positive, default=7, help="of each (default: %(default)s)"
        )
        command.add_argument("--cores", type=_positive, help="keep to so many (default: all)")
    augment = commands.add_parser(
        "augment",
        help="FLOPs and HBM traffic of augmentation, compiled for TPUs that are not there",
    )
    augment.add_argument("--topology", default="v5e:2x2", help="chips (default: %(default)s)")
    augment.add_argument("--batch-size", type=_positive, default=128, help="a chip (%(default)s)")
    for command in commands.choices.values():
        command.add_argument(
            "--image-size", type=_positive, default=224, help="default: %(default)s"
        )
        command.add_argument("--out", type=pathlib.Path, help="also write the table, as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures as the command line says and returns the exit code."""
    args = _parser().parse_args(argv)
    if args.command == "augment":
        # This machine's own devices are of no interest, and a TPU may be busy.
        jax.config.update("jax_platforms", "cpu")
    else:
        use_cores(args.cores)
    try:
        rows = _TABLES[args.command](args)
    except (UserError, ValueError) as error:
        print(f"pnet_jax: {error}", file=sys.stderr)
        return 2
    print(f"\n{format_table(rows)}\n")
    print(" · ".join(f"{key} {value}" for key, value in machine().items()))
    if args.out is not None:
        write_table(args.out, [row | machine() for row in rows])
    return 0


def _steps(args: argparse.Namespace) -> list[dict[str, str]]:
    prepare = steps.train_step if args.command == "train-step" else steps.eval_step
    contenders = [steps.Contender(args.model, args.form)]
    if args.against or args.against_form or args.against_routers_off:
        routers = "off" if args.against_routers_off else "on"
        contenders.append(steps.Contender(args.against or args.model, args.against_form, routers))
    ready = {}
    for contender in contenders:
        print(f"compiling {contender} ...", flush=True)
        ready[str(contender)] = prepare(
            contender, batch_size=args.batch_size, image_size=args.image_size
        )
    secs = interleaved({name: each.step for name, each in ready.items()}, rounds=args.rounds)
    last = secs[str(contenders[-1])]
    return [
        {
            args.command: name,
            "images": str(args.batch_size),
            "median s": f"{statistics.median(times):.3f}",
            "fastest s": f"{min(times):.3f}",
            "ratio": f"{median_ratio(times, last):.2f}",
            "init s": f"{ready[name].init_secs:.1f}",
            "trace s": f"{ready[name].trace_secs:.1f}",
            "compile s": f"{ready[name].compile_secs:.1f}",
        }
        for name, times in secs.items()
    ]


def _layers(args: argparse.Namespace) -> list[dict[str, str]]:
    wanted = [
        layer for layer in layers.layers_of(args.model, args.image_size) if args.match in str(layer)
    ]
    if not wanted:
        raise UserError(f"{args.model} has no dynamic convolution with {args.match!r} in its name.")
    rows = []
    for layer in tqdm.tqdm(wanted, unit="layer"):
        row = {"layer": str(layer), "times": str(layer.count)}
        for form, forward, both in layers.time_layer(
            layer, batch_size=args.batch_size, rounds=args.rounds
        ):
            row[form] = f"{1e3 * forward:.1f} | {1e3 * both:.1f}"
        rows.append(row)
    print("milliseconds, forward | forward and backward; float32")
    return rows


def _input(args: argparse.Namespace) -> list[dict[str, str]]:
    with tempfile.TemporaryDirectory() as temporary:
        name, data_dir = args.name, args.data_dir
        if name is None:
            name, data_dir = generated.NAME, temporary
            generated.build(pathlib.Path(temporary), num_images=200, copies=10)
        dataset = open_dataset(name, data_dir, label=args.label, build_demo=emoji.build)
        records = dataset.split(args.split)
        count = min(args.images, len(records))
        measured = input.stages(
            records, image_size=args.image_size, num_images=count, rounds=args.rounds
        )
        workers = [
            input.with_workers(records, each, image_size=args.image_size, num_images=4 * count)
            for each in args.workers
        ]
    print("", *input.verdict(measured, args.images_per_sec), sep="\n")
    return [each.row() for each in [*measured, *workers]]


def _augment(args: argparse.Namespace) -> list[dict[str, str]]:
    costs = augmentation.costs(
        args.topology, batch_size=args.batch_size, image_size=args.image_size
    )
    rows = [
        {
            f"{args.batch_size} images of {args.image_size} px a chip": cost.policy,
            "GFLOP": f"{cost.compiled.flops / 1e9:.1f}",
            "GB accessed": f"{cost.compiled.bytes_accessed / 1e9:.2f}",
            "MB of temporaries": f"{cost.compiled.temp_bytes / 1e6:.0f}",
            "compile s": f"{cost.compiled.compile_secs:.0f}",
        }
        for cost in tqdm.tqdm(costs, total=len(augmentation.POLICIES), unit="policy")
    ]
    print(f"of one chip of {args.topology} and one step, by XLA")
    return rows


_TABLES = {
    "dynamic-conv": _layers,
    "train-step": _steps,
    "eval-step": _steps,
    "input": _input,
    "augment": _augment,
}


if __name__ == "__main__":
    sys.exit(main())
