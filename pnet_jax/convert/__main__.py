"""The command line of conversion: `python -m pnet_jax.convert --help`."""

import argparse
import contextlib
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from pnet_jax.convert.hub import export_hub
from pnet_jax.convert.source import open_source
from pnet_jax.convert.workdirs import export, import_weights
from pnet_jax.errors import UserError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pnet_jax.convert", description="Convert weights to and from PyTorch."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    checkpoint = argparse.ArgumentParser(add_help=False)
    checkpoint.add_argument("--workdir", type=pathlib.Path, required=True, help="of the run")
    checkpoint.add_argument("--step", type=int, help="of the checkpoint (default: the best one)")
    checkpoint.add_argument(
        "--weights",
        choices=("ema", "raw"),
        default="ema",
        help="the averaged weights that evaluation uses, or those of the last step (default: ema)",
    )
    compared = argparse.ArgumentParser(add_help=False)
    compared.add_argument(
        "--no-verify", dest="verify", action="store_false", help="write without comparing"
    )
    to_torch = commands.add_parser(
        "to-torch",
        parents=[checkpoint, compared],
        help="a run's checkpoint to a PyTorch file with the published key names",
    )
    to_torch.add_argument(
        "--out", type=pathlib.Path, required=True, help="a .safetensors file, or .pth with torch"
    )
    to_torch.set_defaults(run=_to_torch)
    _add_to_onnx(commands, [checkpoint, compared])
    _add_mobile(commands, [checkpoint, compared])
    to_hub = commands.add_parser(
        "to-hub",
        parents=[checkpoint],
        help="a run's checkpoint to a folder with weights, config.json, model card and source",
    )
    to_hub.add_argument("--out", type=pathlib.Path, required=True, help="a folder")
    to_hub.set_defaults(run=_to_hub)
    to_web = commands.add_parser(
        "to-web",
        parents=[checkpoint],
        help="a run's checkpoint to a page that classifies dropped images in the browser",
    )
    to_web.add_argument("--out", type=pathlib.Path, required=True, help="a folder")
    _add_experts(to_web)
    to_web.add_argument(
        "--runtime",
        type=pathlib.Path,
        metavar="DIST",
        help="the folder dist of onnxruntime-web (default: the package from npm)",
    )
    to_web.set_defaults(run=_to_web)
    from_torch = commands.add_parser(
        "from-torch", help="a PyTorch file to a directory for config.init_from"
    )
    from_torch.add_argument(
        "--weights", type=pathlib.Path, required=True, help="a .safetensors or .pth file"
    )
    from_torch.add_argument("--model", required=True, help="such as parameternet_300m")
    from_torch.add_argument("--out", type=pathlib.Path, required=True, help="a new directory")
    from_torch.add_argument(
        "--routing", help="of a dynamic network; the published weights have sigmoid_linear"
    )
    from_torch.add_argument("--num-experts", type=int, help="of a dynamic network (default: 4)")
    from_torch.add_argument("--width", type=float, help="if not the model's own")
    from_torch.set_defaults(run=_from_torch)
    return parser


def _add_to_onnx(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    to_onnx = commands.add_parser(
        "to-onnx",
        parents=parents,
        help="a run's checkpoint to an ONNX file, compared with the Flax network layer by layer",
    )
    to_onnx.add_argument("--out", type=pathlib.Path, required=True, help="an .onnx file")
    to_onnx.add_argument(
        "--batch",
        type=_batch,
        default="any",
        metavar="any|N",
        help="images that the file takes at once (default: any)",
    )
    to_onnx.add_argument(
        "--fold-bn",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="batch norm as part of the kernels, or as nodes of its own",
    )
    _add_experts(to_onnx)
    to_onnx.add_argument(
        "--with-preprocessing",
        action="store_true",
        help="the file takes [N, S, S, 3] uint8 pixels instead of normalised floats",
    )
    to_onnx.add_argument(
        "--quantize",
        type=_positive,
        default=0,
        metavar="IMAGES",
        help="compute in int8 (QDQ), with ranges from so many training images of the run's data "
        "set, and say what that costs in top-1 on its evaluation split",
    )
    to_onnx.add_argument("--data-dir", help="where that data set lies, if it has moved")
    to_onnx.set_defaults(run=_to_onnx)


def _add_mobile(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    to_litert = commands.add_parser(
        "to-litert", parents=parents, help="a run's checkpoint to a LiteRT file for phones"
    )
    to_litert.add_argument("--out", type=pathlib.Path, required=True, help="a .tflite file")
    to_litert.set_defaults(run=_to_litert)
    to_ncnn = commands.add_parser(
        "to-ncnn", parents=parents, help="a run's checkpoint to a folder for ncnn on phones"
    )
    to_ncnn.add_argument("--out", type=pathlib.Path, required=True, help="a folder")
    to_ncnn.set_defaults(run=_to_ncnn)


def _add_experts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--experts",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="how experts are stored; unless fp32, other matrices are stored as int16",
    )


def _batch(text: str) -> int | str:
    return "N" if text == "any" else _positive(text)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _to_torch(args: argparse.Namespace) -> str:
    done = export(
        args.workdir, args.out, step=args.step, weights=args.weights, verified=args.verify
    )
    return f"{done.path}: {done.model}, step {done.step}, {done.tensors} tensors"


def _to_hub(args: argparse.Namespace) -> str:
    done = export_hub(args.workdir, args.out, step=args.step, weights=args.weights)
    checked = (
        "not compared, as PyTorch is not installed"
        if done.difference is None
        else f"logits within {done.difference:.0e} of their standard deviation"
    )
    return f"{done.path}: {done.source.model}, step {done.source.step}; {checked}"


def _from_torch(args: argparse.Namespace) -> str:
    fields = {"routing": args.routing, "num_experts": args.num_experts, "width": args.width}
    overrides = {name: value for name, value in fields.items() if value is not None}
    import_weights(args.weights, args.model, args.out, **overrides)
    return f"{args.out}: {args.model}; start from it with --config.init_from={args.out}"


def _to_onnx(args: argparse.Namespace) -> str:
    if args.data_dir and not args.quantize:
        raise UserError("--data-dir is of no use without --quantize; give both or neither.")
    with _onnx_needed("to-onnx"):
        from pnet_jax.convert.onnx.export import Options, export_onnx
    options = Options(
        args.batch, args.fold_bn, args.experts, args.with_preprocessing, args.quantize
    )
    done = export_onnx(
        args.workdir,
        args.out,
        options,
        step=args.step,
        weights=args.weights,
        verified=args.verify,
        data_dir=args.data_dir,
    )
    if done.int8 is None:
        return _told(done)
    accuracy = done.int8["accuracy"]
    if accuracy is None:
        return f"{_told(done)}; in int8, its accuracy not measured"
    return (
        f"{_told(done)} before int8\ntop-1 in fp32 {accuracy['fp32_top1']:.2%}, in int8 "
        f"{accuracy['int8_top1']:.2%}, on {accuracy['images']:,} images of {accuracy['split']}"
    )


def _to_litert(args: argparse.Namespace) -> str:
    with _mobile_needed("to-litert"):
        from pnet_jax.convert.mobile.litert import write_litert
    source = open_source(args.workdir, step=args.step, weights=args.weights)
    return _told(write_litert(source, args.out, verified=args.verify))


def _to_ncnn(args: argparse.Namespace) -> str:
    with _mobile_needed("to-ncnn"):
        from pnet_jax.convert.mobile.ncnn import write_ncnn
    source = open_source(args.workdir, step=args.step, weights=args.weights)
    return _told(write_ncnn(source, args.out, verified=args.verify))


def _to_web(args: argparse.Namespace) -> str:
    with _onnx_needed("to-web"):
        from pnet_jax.convert.web import export_web
    done = export_web(
        args.workdir,
        args.out,
        step=args.step,
        weights=args.weights,
        experts=args.experts,
        runtime=args.runtime,
    )
    return f"{_told(done)}\nlook at it by: python -m http.server --directory {args.out}"


@contextlib.contextmanager
def _onnx_needed(command: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{command} needs onnx and onnxruntime, which are not installed: pip install "
            f"'pnet_jax[torch]'."
        ) from error


@contextlib.contextmanager
def _mobile_needed(command: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{command} needs {error.name or 'a package'}, which is not installed: pip install "
            f"'pnet_jax[mobile]'."
        ) from error


def _told(done: Any) -> str:
    checked = "not compared with the Flax network"
    if done.difference is not None:
        checked = (
            f"{done.layers} layers compared, logits within {done.difference:.0e} of their "
            f"standard deviation"
        )
    return (
        f"{done.path}: {done.source.model}, step {done.source.step}, {done.size_bytes / 1e6:.1f} "
        f"MB; {checked}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code: 1 for a mistake in what it is given."""
    args = _parser().parse_args(argv)
    try:
        print(args.run(args))
    except UserError as error:
        print(f"pnet_jax: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
