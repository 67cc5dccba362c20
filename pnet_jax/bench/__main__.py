"""The command line of the benchmarks: `python -m pnet_jax.bench --help` lists them.

Times of two contenders are taken in turns in one process; the ratio is the median of the ratios of
neighbours.
"""

import argparse
import pathlib
import statistics
import sys
from collections.abc import Sequence

import jax
import tqdm

from pnet_jax.bench import augmentation, layers, steps
from pnet_jax.bench.timing import interleaved, machine, median_ratio, use_cores
from pnet_jax.errors import UserError
from pnet_jax.report.tables import format_table, write_table


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
    for command in list(commands.choices.values()):
        command.add_argument("--batch-size", type=int, default=16, help="default: %(default)s")
        command.add_argument("--rounds", type=int, default=7, help="of each (default: %(default)s)")
        command.add_argument("--cores", type=int, help="keep to so many (default: all)")
    augment = commands.add_parser(
        "augment",
        help="FLOPs and HBM traffic of augmentation, compiled for TPUs that are not there",
    )
    augment.add_argument("--topology", default="v5e:2x2", help="chips (default: %(default)s)")
    augment.add_argument("--batch-size", type=int, default=128, help="a chip (%(default)s)")
    for command in commands.choices.values():
        command.add_argument("--image-size", type=int, default=224, help="default: %(default)s")
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
    measure = {"dynamic-conv": _layers, "augment": _augment}.get(args.command, _steps)
    try:
        rows = measure(args)
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
    if args.against or args.against_form:
        contenders.append(steps.Contender(args.against or args.model, args.against_form))
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


if __name__ == "__main__":
    sys.exit(main())
