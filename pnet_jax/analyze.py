"""What networks cost, and the paper's tables and figures: `python -m pnet_jax.analyze --help`."""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from flax import linen as nn

from pnet_jax.analysis import complexity, figures, latency, points, tables
from pnet_jax.analysis.count import Count, count
from pnet_jax.analysis.published import NETWORKS
from pnet_jax.errors import UserError
from pnet_jax.models import create_model, list_models
from pnet_jax.report import atomic
from pnet_jax.report.progress import Progress
from pnet_jax.report.tables import format_table


def count_command(args: argparse.Namespace) -> str:
    """Parameters, multiply-adds and activations, by layer and in total."""
    counted = _count(_model(args), args)
    if args.json:
        return _json(_settings(args) | tables.count_json(counted))
    title = f"{args.model}, {args.num_classes:,} classes, {args.resolution} px"
    table = format_table(tables.count_rows(counted))
    return f"{table}\n\n{title}: {tables.count_sentence(counted)}"


def complexity_command(args: argparse.Namespace) -> str:
    """What each dynamic layer costs against a static one."""
    model = _model(args)
    if getattr(model, "num_experts", None) is None:
        raise UserError(f"{args.model} is static and has nothing to compare; name a dynamic model.")
    counted = _count(model, args)
    rows = complexity.ratios(counted)
    total = complexity.network_ratio(counted)
    if args.json:
        content = {
            "layers": [tables.complexity_json(row) for row in rows],
            "network": tables.complexity_json(total),
        }
        return _json(_settings(args) | content)
    experts = total.num_experts
    return (
        f"{format_table(tables.complexity_rows([*rows, total]))}\n\n"
        f"{args.model}, {experts} experts, {args.resolution} px. The paper (arXiv 2306.14525, "
        f"section 3.3): R_param about {experts}, R_FLOPs about 1."
    )


def models_command(args: argparse.Namespace) -> str:
    """The table of all networks."""
    rows = [tables.model_row(name) for name in list_models()]
    if args.json:
        return _json([tables.model_json(row) for row in rows])
    text = tables.models_markdown(rows)
    if args.out is None:
        return text.rstrip("\n")
    _write(args.out, text.encode())
    return f"wrote {args.out}"


def figures_command(args: argparse.Namespace) -> str:
    """The paper's figures with this project's runs in them."""
    runs = [points.load_run(directory) for directory in args.runs]
    latencies = None if args.latency is None else points.load_latencies(args.latency)
    accuracies, gains = points.published()
    own_gains = points.run_gains(runs)
    timed = [] if latencies is None else [a for a in accuracies if a.network.model in latencies[1]]
    if latencies is not None and not timed:
        raise UserError(
            f"{args.latency} has no network with a published accuracy; there are "
            f"{', '.join(sorted({a.network.model for a in accuracies}))}."
        )
    experts = points.published_experts() + own_gains
    drawn: dict[str, tuple[Any, list[Any]]] = {
        "accuracy_flops": (
            figures.accuracy_against_macs([*accuracies, *runs], [*gains, *own_gains]),
            [*accuracies, *runs, *gains, *own_gains],
        ),
        "experts": (figures.experts_ablation(experts), [*experts]),
    }
    said = []
    if latencies is None:
        said.append("left out accuracy_latency: no latencies were given (--latency FILE)")
    else:
        # Without runs: their networks may have another width or resolution than what was timed.
        figure = figures.accuracy_against_latency(timed, latencies[1], latencies[0])
        drawn["accuracy_latency"] = (figure, [*timed])
    for name, (figure, shown) in drawn.items():
        for suffix in (".svg", ".png"):
            _write(args.out / f"{name}{suffix}", figures.picture(figure, suffix[1:]))
        content = [point._asdict() | {"network": point.network._asdict()} for point in shown]
        _write(args.out / f"{name}.json", (_json(content) + "\n").encode())
        said.append(f"wrote {args.out / name}.svg, .png and .json")
    absent = sorted({entry.model for entry in NETWORKS} - set(list_models()))
    if absent:
        said.append(f"left out, as this project has no such networks: {', '.join(absent)}")
    return "\n".join(said)


def latency_command(args: argparse.Namespace) -> str:
    """Milliseconds of single images, networks in turns."""
    models = list(dict.fromkeys(args.models))
    with Progress(args.repeats, images_per_step=len(models), description="latency") as progress:
        timed = latency.measure(
            models,
            threads=args.threads,
            repeats=args.repeats,
            image_size=args.resolution,
            runtime=args.runtime,
            on_repeat=progress.update,
        )
    rows = latency.rows(timed)
    content = {
        "setting": latency.setting(args.threads, args.runtime),
        "latency_ms": {one.model: round(one.median, 3) for one in timed},
        "rows": rows,
        "milliseconds": {
            one.model: [round(value, 3) for value in one.milliseconds] for one in timed
        },
    }
    if args.out is not None:
        _write(args.out, (_json(content) + "\n").encode())
    if args.json:
        return _json(content)
    return f"{format_table(rows)}\n\n{content['setting']}"


def _model(args: argparse.Namespace) -> nn.Module:
    fields = {"num_experts": args.num_experts, "routing": args.routing}
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        model = create_model(args.model, num_classes=args.num_classes, **given)
    except ValueError as error:
        raise UserError(str(error)) from error
    if args.routing is not None and getattr(model, "num_experts", None) is None:
        raise UserError(f"{args.model} is static and has no router; leave --routing out.")
    return model


def _count(model: nn.Module, args: argparse.Namespace) -> Count:
    try:
        return count(model, args.resolution)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{args.model} cannot take images of {args.resolution} pixels ({reason}); try "
            "--resolution 224."
        ) from error


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    return {"model": args.model, "num_classes": args.num_classes, "resolution": args.resolution}


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False)


def _write(path: pathlib.Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.replace_file(path, content)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); choose another --out."
        ) from error


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def _at_least_two(text: str) -> int:
    if int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text} repeats have no spread; take two or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pnet_jax.analyze",
        description="What networks cost, traced from the networks, and the paper's figures.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    network = argparse.ArgumentParser(add_help=False)
    network.add_argument("--model", required=True, metavar="NAME", help="such as parameternet_300m")
    network.add_argument(
        "--num-classes", type=_positive, default=1000, metavar="N", help="default: 1000"
    )
    network.add_argument(
        "--resolution", type=_positive, default=224, metavar="R", help="pixels (default: 224)"
    )
    network.add_argument(
        "--num-experts", type=_positive, metavar="K", help="of a dynamic model, if not its own"
    )
    network.add_argument(
        "--routing", help="of a dynamic model, if not its own; the published code's: sigmoid_linear"
    )
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print JSON instead of a table")

    listing = commands.add_parser(
        "count",
        parents=[network, as_json],
        help="parameters, multiply-adds and activations, layer by layer",
    )
    listing.set_defaults(run=count_command)
    ratios = commands.add_parser(
        "complexity",
        parents=[network, as_json],
        help="each dynamic layer's parameters and multiply-adds against a static one's",
    )
    ratios.set_defaults(run=complexity_command)
    models = commands.add_parser(
        "models", parents=[as_json], help="the table of all networks (docs/models.md)"
    )
    models.add_argument("--out", type=pathlib.Path, metavar="FILE", help="write it as Markdown")
    models.set_defaults(run=models_command)
    times = commands.add_parser(
        "latency",
        parents=[as_json],
        help="milliseconds of single images on the CPU, networks in turns",
    )
    times.add_argument(
        "--models",
        nargs="+",
        required=True,
        metavar="NAME",
        help="networks, with :published behind as PyTorch exports the published code, or .onnx "
        "files; with resnet50 and swin_tiny among them, ratios to these are shown",
    )
    times.add_argument("--runtime", choices=latency.RUNTIMES, default="onnxruntime")
    times.add_argument("--threads", type=_positive, default=1, help="default: 1")
    times.add_argument("--repeats", type=_at_least_two, default=30, help="default: 30")
    times.add_argument(
        "--resolution", type=_positive, default=224, metavar="R", help="pixels (default: 224)"
    )
    times.add_argument(
        "--out", type=pathlib.Path, metavar="FILE", help="also write JSON, for figures --latency"
    )
    times.set_defaults(run=latency_command)
    pictures = commands.add_parser(
        "figures",
        help="accuracy against multiply-adds and latency, and the ablation of experts",
        description="Draws published numbers hollow and those of runs solid, as SVG and PNG, and "
        "writes the numbers beside them as JSON. Runs on other data than ImageNet-1K get panels of "
        "their own.",
    )
    pictures.add_argument(
        "--runs",
        type=pathlib.Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="the --workdir of each finished training run to show",
    )
    pictures.add_argument(
        "--latency",
        type=pathlib.Path,
        metavar="FILE",
        help='JSON: {"setting": "how it was measured", "latency_ms": {"parameternet_300m": 21.4}}',
    )
    pictures.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    pictures.set_defaults(run=figures_command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code (2 for a user's mistake)."""
    args = _parser().parse_args(argv)
    try:
        print(args.run(args))
    except UserError as error:
        print(f"pnet_jax: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
