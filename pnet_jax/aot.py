"""Compiles a configuration's real train step for TPUs that are not there.

python -m pnet_jax.aot --config=configs/pnet300m_22k.py --topology=v5e:2x2 --json
"""

import argparse
import dataclasses
import json
import pathlib
import runpy
import sys
from collections.abc import Sequence
from typing import Any

# Images a training epoch has in the releases that the configurations name.
_TRAIN_IMAGES = {"imagenet22k": 14_197_122, "imagenet2012": 1_281_167, "emoji": 50_000}


def main(argv: Sequence[str] | None = None) -> int:
    """Compiles as the command line says and returns the exit code."""
    args = _parser().parse_args(argv)
    import jax

    # This machine's own devices are of no interest, and a TPU may be busy.
    jax.config.update("jax_platforms", "cpu")
    from pnet_jax.errors import UserError

    try:
        result = _compile(args)
    except UserError as error:
        print(f"pnet_jax: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(result))
    else:
        print(_in_words(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pnet_jax.aot",
        description="Compile a configuration's train step for TPUs that are not there, and say "
        "what XLA says of it: FLOPs, HBM traffic, memory and collectives of one chip.",
    )
    parser.add_argument("--config", required=True, help="a file of configs/, ':demo' allowed")
    parser.add_argument(
        "--topology", default="v5e:2x2", help="chips: v4:, v5e:, v5p:, v6e:, then 2x2 and so on"
    )
    parser.add_argument("--model", help="another network than the configuration's")
    parser.add_argument("--form", help="of the dynamic convolutions, if not the configuration's")
    parser.add_argument("--global-batch-size", type=int, help="if not the configuration's")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _compile(args: argparse.Namespace) -> dict[str, Any]:
    from pnet_jax.config import Config
    from pnet_jax.parallel.ahead_of_time import compile_step, tpu_devices
    from pnet_jax.parallel.mesh import check_batch, make_mesh
    from pnet_jax.plan import Plan
    from pnet_jax.program import Program

    fields = _config_of(args.config)
    fields.model.name = args.model or fields.model.name
    if args.form:
        fields.model.form = args.form
    fields.global_batch_size = args.global_batch_size or fields.global_batch_size
    config = Config.of(fields)
    mesh = make_mesh(config.mesh, tpu_devices(args.topology))
    check_batch("global_batch_size", config.global_batch_size, mesh)
    plan = Plan.of(config, _TRAIN_IMAGES.get(config.data.name, 1_000_000))
    program = Program.of(
        config, mesh, steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps
    )
    compiled = compile_step(program.train_step(), program.state_shape, program.batch_shape())
    return {
        "config": args.config,
        "model": config.model.name,
        "topology": args.topology,
        "chips": mesh.devices.size,
        "batch_per_chip": config.global_batch_size // mesh.devices.size,
        **dataclasses.asdict(compiled),
    }


def _config_of(name: str) -> Any:
    from pnet_jax.errors import UserError

    path, _, size = name.partition(":")
    if not pathlib.Path(path).is_file():
        raise UserError(f"There is no configuration file {path!r}; see configs/.")
    get_config = runpy.run_path(path)["get_config"]
    return get_config(size) if size else get_config()


def _in_words(result: dict[str, Any]) -> str:
    lines = [
        f"{result['model']} on {result['chips']} chips of {result['topology']}, "
        f"{result['batch_per_chip']} images each; of one chip and one step:",
        f"  {result['flops'] / 1e12:8.3f} TFLOP",
        f"  {result['bytes_accessed'] / 1e9:8.2f} GB of HBM traffic",
        f"  {result['temp_bytes'] / 2**30:8.2f} GiB of temporaries",
        f"  {result['argument_bytes'] / 2**30:8.2f} GiB of arguments",
    ]
    for each in result["collectives"]:
        lines.append(f"  {each['bytes'] / 1e6:8.1f} MB in {each['count']} {each['kind']}")
    lines.append(f"compiled in {result['compile_secs']:.0f} s")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
