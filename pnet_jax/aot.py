"""Compiles a configuration's real train step for TPUs that are not there.

python -m pnet_jax.aot --config=configs/pnet300m_22k.py --topology=v5e:2x2 --json
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import runpy
import sys
from collections.abc import Sequence
from typing import Any

# Images a training epoch has in the releases that the configurations name.
_TRAIN_IMAGES = {"imagenet22k": 14_197_122, "imagenet2012": 1_281_167, "emoji": 50_000}
_SEARCH_STEP = 16  # images a chip; what a batch is rounded to


def main(argv: Sequence[str] | None = None) -> int:
    """Compiles as the command line says and returns the exit code."""
    args = _parser().parse_args(argv)
    import jax

    # This machine's own devices are of no interest, and a TPU may be busy.
    jax.config.update("jax_platforms", "cpu")
    from pnet_jax.errors import UserError
    from pnet_jax.report.tables import format_table, write_table

    try:
        results = []
        for topology in args.topology:
            print(f"compiling for {topology}; a full-size network takes minutes", file=sys.stderr)
            results.append(_searched(args, topology) if args.search_batch else _of(args, topology))
            print(json.dumps(results[-1]) if args.json else _in_words(results[-1]), flush=True)
    except UserError as error:
        print(f"pnet_jax: {error}", file=sys.stderr)
        return 2
    rows = [_row(result) for result in results]
    if len(rows) > 1 and not args.json:
        print(f"\n{format_table(rows)}")
    if args.out is not None:
        write_table(args.out, rows)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pnet_jax.aot",
        description="Compile a configuration's train step for TPUs that are not there, and say "
        "whether it fits, what it computes, moves and sends on one chip, and how long it takes at "
        "least.",
    )
    parser.add_argument("--config", required=True, help="a file of configs/, ':demo' allowed")
    parser.add_argument(
        "--topology",
        nargs="+",
        default=["v5e:2x2"],
        help="chips of a slice: v4:, v5e:, v5p: or v6e:, then 2x2 and so on; one or more",
    )
    parser.add_argument("--num-slices", type=int, default=1, help="slices of that topology")
    parser.add_argument("--model", help="another network than the configuration's")
    parser.add_argument(
        "--set",
        nargs="+",
        metavar="FIELD=VALUE",
        default=[],
        help="other fields of the configuration, such as augment.rand_augment=",
    )
    parser.add_argument("--form", help="of the dynamic convolutions, if not the configuration's")
    batch = parser.add_mutually_exclusive_group()
    batch.add_argument("--global-batch-size", type=int, help="if not the configuration's")
    batch.add_argument("--batch-per-chip", type=int, help="images of each chip")
    parser.add_argument(
        "--search-batch",
        action="store_true",
        help="find the largest batch that fits, to within 5%%, by compiling several",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object a topology")
    parser.add_argument("--out", type=pathlib.Path, help="also write the table, as JSON")
    return parser


def _searched(args: argparse.Namespace, topology: str) -> dict[str, Any]:
    """The result at the largest batch that fits, to within 5%."""
    from pnet_jax.errors import UserError
    from pnet_jax.parallel.ahead_of_time import DoesNotFit, largest_batch, tpu_devices

    chips = len(tpu_devices(topology, args.num_slices))
    results = {}

    def room(batch_per_chip: int) -> float | None:
        print(f"  {batch_per_chip} images a chip:", end=" ", file=sys.stderr, flush=True)
        args.global_batch_size = batch_per_chip * chips
        times = None
        with contextlib.suppress(DoesNotFit):
            result = _of(args, topology)
            # The state is there whatever the batch.
            times = (result["hbm_bytes"] - result["argument_bytes"]) / result["temp_bytes"]
        fits = times is not None and times >= 1
        print("fit" if fits else "too many", file=sys.stderr)
        if not fits:
            return None
        results[batch_per_chip] = result
        return times

    start = args.batch_per_chip or (args.global_batch_size or 0) // chips or 8 * _SEARCH_STEP
    args.batch_per_chip = None
    best = largest_batch(room, start=start, step=_SEARCH_STEP)
    if not best:
        raise UserError(
            f"Not even {_SEARCH_STEP} images a chip fit on {topology}; raise fsdp in config.mesh."
        )
    return results[best]


def _of(args: argparse.Namespace, topology: str) -> dict[str, Any]:
    """Compiles for one topology; see `_in_words` for what comes out."""
    from pnet_jax.config import Config
    from pnet_jax.parallel.ahead_of_time import bytes_on_a_chip, compile_step, tpu_devices
    from pnet_jax.parallel.chips import chip_of, roofline
    from pnet_jax.parallel.mesh import check_batch, make_mesh
    from pnet_jax.plan import Plan
    from pnet_jax.program import Program

    fields = config_of(args.config)
    _set(fields, args.set)
    fields.model.name = args.model or fields.model.name
    if args.form:
        fields.model.form = args.form
    devices = tpu_devices(topology, args.num_slices)
    per_chip = args.batch_per_chip and args.batch_per_chip * len(devices)
    fields.global_batch_size = args.global_batch_size or per_chip or fields.global_batch_size
    config = Config.of(fields)
    mesh = make_mesh(config.mesh, devices)
    check_batch("global_batch_size", config.global_batch_size, mesh)
    plan = Plan.of(config, _TRAIN_IMAGES.get(config.data.name, 1_000_000))
    program = Program.of(
        config, mesh, steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps
    )
    state = program.state_shape
    compiled = compile_step(
        program.train_step(), state, program.batch_shape(), devices=list(mesh.devices.flat)
    )
    chip = chip_of(topology)
    limits = roofline(
        chip,
        flops=compiled.flops,
        hbm_bytes=compiled.bytes_accessed,
        ici_bytes=sum(each.ici_bytes for each in compiled.collectives),
        dcn_bytes=sum(each.dcn_bytes for each in compiled.collectives),
    )
    images_per_sec = config.global_batch_size / limits.secs
    hours = plan.total_steps * limits.secs / 3600
    hosts = len({(getattr(d, "slice_index", 0), d.process_index) for d in devices})
    return {
        "config": args.config,
        "model": config.model.name,
        "topology": topology,
        "num_slices": args.num_slices,
        "chips": len(devices),
        "hosts": hosts,
        "batch_per_chip": config.global_batch_size // len(devices),
        "hbm_bytes": chip.hbm_bytes,
        "parameter_bytes": bytes_on_a_chip(state.params),
        "optimizer_bytes": bytes_on_a_chip((state.opt_state, state.ema)),
        "activation_bytes": compiled.temp_bytes,
        **dataclasses.asdict(compiled),
        **dataclasses.asdict(limits),
        "step_secs": limits.secs,
        "limit": limits.limit,
        "images_per_sec": images_per_sec,
        "images_per_sec_per_host": images_per_sec / hosts,
        "epochs": config.epochs,
        "hours": hours,
        "chip_hours": hours * len(devices),
    }


def _set(fields: Any, assignments: Sequence[str]) -> None:
    """Sets fields as `--config.FIELD=VALUE` of training does."""
    from pnet_jax.errors import UserError

    for assignment in assignments:
        name, _, text = assignment.partition("=")
        try:
            *groups, field = name.split(".")
            group = fields
            for each in groups:
                group = group[each]
            group[field] = text if group.get_type(field) is str else json.loads(text)
        except (KeyError, ValueError, AttributeError, TypeError) as error:
            raise UserError(
                f"--set {assignment} cannot be read; write FIELD=VALUE with a field of "
                f"pnet_jax/config.py, such as augment.random_erasing=0."
            ) from error


def config_of(name: str) -> Any:
    """The `ConfigDict` of a file, or of `FILE:ARGUMENT`. Raises UserError if there is no file."""
    from pnet_jax.errors import UserError

    path, _, size = name.partition(":")
    if not pathlib.Path(path).is_file():
        raise UserError(f"There is no configuration file {path!r}; see configs/.")
    get_config = runpy.run_path(path)["get_config"]
    return get_config(size) if size else get_config()


def _in_words(result: dict[str, Any]) -> str:
    gib = {key: result[key] / 2**30 for key in result if key.endswith("_bytes")}
    slices = f" in {result['num_slices']} slices" if result["num_slices"] > 1 else ""
    lines = [
        f"{result['model']} on {result['chips']} chips of {result['topology']}{slices}, "
        f"{result['batch_per_chip']} images each; of one chip and one step:",
        f"  {gib['argument_bytes'] + gib['temp_bytes']:8.2f} GiB of the {gib['hbm_bytes']:.0f} it "
        f"has: it fits (parameters {gib['parameter_bytes']:.2f}, optimizer and averages "
        f"{gib['optimizer_bytes']:.2f}, activations and other temporaries "
        f"{gib['activation_bytes']:.2f})",
        f"  {result['flops'] / 1e12:8.3f} TFLOP, {1e3 * result['compute_secs']:.1f} ms",
        f"  {result['bytes_accessed'] / 1e9:8.2f} GB of HBM traffic, "
        f"{1e3 * result['memory_secs']:.1f} ms",
    ]
    for each in result["collectives"]:
        between = ", between slices too" if each["ici_bytes"] and each["dcn_bytes"] else ""
        lines.append(f"  {each['bytes'] / 1e6:8.1f} MB in {each['count']} {each['kind']}{between}")
    lines += [
        f"  {1e3 * (result['ici_secs'] + result['dcn_secs']):8.2f} ms to send them",
        f"at least {1e3 * result['step_secs']:.1f} ms a step, for the {result['limit']}: at most "
        f"{result['images_per_sec']:,.0f} images/s, {result['images_per_sec_per_host']:,.0f} from "
        f"each of {result['hosts']} hosts; {result['epochs']:g} epochs take {result['hours']:,.1f} "
        f"hours, {result['chip_hours']:,.0f} chip-hours",
        f"compiled in {result['compile_secs']:.0f} s",
    ]
    return "\n".join(lines)


def _row(result: dict[str, Any]) -> dict[str, str]:
    """A line of the table of topologies."""
    sent = sum(each["bytes"] for each in result["collectives"])
    return {
        "network": result["model"],
        "chips": f"{result['topology']}, {result['chips']}",
        "images a chip": str(result["batch_per_chip"]),
        "GiB of HBM": f"{(result['argument_bytes'] + result['temp_bytes']) / 2**30:.1f} of "
        f"{result['hbm_bytes'] >> 30}",
        "TFLOP": f"{result['flops'] / 1e12:.2f}",
        "GB traffic": f"{result['bytes_accessed'] / 1e9:.1f}",
        "MB sent": f"{sent / 1e6:.0f}",
        "ms a step": f"{1e3 * result['step_secs']:.1f}",
        "images/s": f"{result['images_per_sec']:,.0f}",
        "of a host": f"{result['images_per_sec_per_host']:,.0f}",
        f"hours, {result['epochs']:g} epochs": f"{result['hours']:,.1f}",
        "chip-hours": f"{result['chip_hours']:,.0f}",
    }


if __name__ == "__main__":
    sys.exit(main())
