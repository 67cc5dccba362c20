"""The command line of conversion: `python -m pnet_jax.convert to-torch|from-torch --help`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from pnet_jax.convert.workdirs import export, import_weights
from pnet_jax.errors import UserError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pnet_jax.convert", description="Convert weights to and from PyTorch."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    to_torch = commands.add_parser(
        "to-torch", help="a run's checkpoint to a PyTorch file with the published key names"
    )
    to_torch.add_argument("--workdir", type=pathlib.Path, required=True, help="of the run")
    to_torch.add_argument(
        "--out", type=pathlib.Path, required=True, help="a .safetensors file, or .pth with torch"
    )
    to_torch.add_argument("--step", type=int, help="of the checkpoint (default: the best one)")
    to_torch.add_argument(
        "--weights",
        choices=("ema", "raw"),
        default="ema",
        help="the averaged weights that evaluation uses, or those of the last step (default: ema)",
    )
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
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        if args.command == "to-torch":
            done = export(args.workdir, args.out, step=args.step, weights=args.weights)
            print(f"{done.path}: {done.model}, step {done.step}, {done.tensors} tensors")
        else:
            fields = {
                "routing": args.routing,
                "num_experts": args.num_experts,
                "width": args.width,
            }
            overrides = {name: value for name, value in fields.items() if value is not None}
            import_weights(args.weights, args.model, args.out, **overrides)
            print(f"{args.out}: {args.model}; start from it with --config.init_from={args.out}")
    except UserError as error:
        print(f"pnet_jax: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
