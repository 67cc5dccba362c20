"""Single images through LiteRT and ncnn in one thread, by form of dynamic convolution, in turns."""

import argparse
import functools
import pathlib
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pnet_jax.bench.timing import interleaved, machine, median_ratio, use_cores
from pnet_jax.convert import torch_model
from pnet_jax.convert.mobile import litert, ncnn
from pnet_jax.convert.mobile.folded import fold_norms
from pnet_jax.report.tables import format_table, write_table

PUBLISHED = "conv"
# Of dynamic networks; "folded" is what to-litert writes, "conv" what to-ncnn does.
FORMS = {"litert": ("folded", "matmul", PUBLISHED), "ncnn": ("matmul", PUBLISHED)}


def prepare(runtime: str, name: str, form: str, image: np.ndarray) -> Callable[[], Any]:
    """What runs a network with random weights on one image `[S, S, 3]`."""
    torch.manual_seed(0)
    base = "matmul" if form == "folded" else form
    network = torch_model.create_model(name, routing="sigmoid_linear", form=base).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.bias.data.normal_(std=0.1)  # which converters would leave out if it were zero
    if form == "folded":
        network = fold_norms(network)
    if runtime == "ncnn":
        with tempfile.TemporaryDirectory() as folder:
            ncnn.convert(network, len(image), pathlib.Path(folder))
            return functools.partial(ncnn.run, ncnn.open_network(pathlib.Path(folder)), image)
    interpreter = litert.open_interpreter(litert.convert(network, len(image)))
    runner = interpreter.get_signature_runner()
    return functools.partial(runner, **{litert.INPUT: image[None]})


def main() -> None:
    """Times all and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["parameternet_300m", "ghostnet_300m"])
    parser.add_argument("--runtimes", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=pathlib.Path, help="also write the table, as JSON")
    args = parser.parse_args()
    use_cores(1)
    image = np.random.default_rng(0).normal(size=(args.image_size, args.image_size, 3))
    runs = {}
    for runtime in args.runtimes:
        for name in args.models:
            forms = FORMS[runtime] if name.startswith("parameternet") else (PUBLISHED,)
            for form in forms:
                print(f"converting {name}, form {form}, for {runtime} ...", flush=True)
                runs[runtime, name, form] = prepare(runtime, name, form, image.astype(np.float32))
    secs = interleaved(runs, rounds=args.rounds, warmup_rounds=2)
    rows = []
    for (runtime, name, form), times in secs.items():
        lower, _, upper = statistics.quantiles(times, n=4)
        rows.append(
            {
                "runtime": runtime,
                "network": name,
                "form": form,
                "ms": f"{1e3 * statistics.median(times):.1f}",
                "quartiles": f"{1e3 * lower:.1f} to {1e3 * upper:.1f}",
                "/ published form": f"{median_ratio(times, secs[runtime, name, PUBLISHED]):.2f}",
                f"/ {args.models[-1]}": (
                    f"{median_ratio(times, secs[runtime, args.models[-1], PUBLISHED]):.2f}"
                ),
            }
        )
    print(f"\n{format_table(rows)}\n")
    facts = machine() | {"torch": torch.__version__}
    print(" · ".join(f"{key} {value}" for key, value in facts.items()))
    if args.out is not None:
        write_table(args.out, [row | facts for row in rows])


if __name__ == "__main__":
    main()
