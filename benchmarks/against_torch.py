"""This project's steps against the published PyTorch form of the same network, in turns."""

import argparse
import pathlib
import statistics

import numpy as np
import torch

from pnet_jax.bench import steps
from pnet_jax.bench.timing import interleaved, machine, median_ratio, use_cores
from pnet_jax.convert import torch_model
from pnet_jax.report.tables import format_table, write_table

THEIRS = "PyTorch, published form"
OURS = "pnet_jax"


def main() -> None:
    """Times both and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="parameternet_300m")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cores", type=int)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    use_cores(args.cores)
    torch.set_num_threads(args.cores or torch.get_num_threads())
    contender = steps.Contender(args.model)
    rows = []
    for kind, batch_size in (("train", 16), ("eval", 16), ("eval", 1)):
        prepare = steps.train_step if kind == "train" else steps.eval_step
        ours = prepare(contender, batch_size=batch_size, image_size=args.image_size).step
        theirs = _torch_step(args.model, kind, batch_size, args.image_size)
        secs = interleaved({OURS: ours, THEIRS: theirs}, rounds=args.rounds)
        rows.append(
            {
                "step": f"{kind}, {batch_size} images",
                **{name: f"{statistics.median(times):.3f} s" for name, times in secs.items()},
                "ratio": f"{median_ratio(secs[OURS], secs[THEIRS]):.2f}",
            }
        )
        print(rows[-1], flush=True)
    print(format_table(rows))
    facts = machine() | {"torch": torch.__version__}
    print(" · ".join(f"{key} {value}" for key, value in facts.items()))
    if args.out is not None:
        write_table(args.out, [row | facts for row in rows])


def _torch_step(name: str, kind: str, batch_size: int, image_size: int):
    torch.manual_seed(0)
    model = torch_model.create_model(name, routing="sigmoid_linear", form="conv")
    model.train(kind == "train")
    rng = np.random.default_rng(0)
    images = torch.from_numpy(np.float32(rng.normal(size=(batch_size, 3, image_size, image_size))))
    labels = torch.from_numpy(rng.integers(0, 1000, batch_size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)

    def train_step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(images), labels, label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        return loss.item()

    def eval_step() -> None:
        with torch.inference_mode():
            model(images)

    return train_step if kind == "train" else eval_step


if __name__ == "__main__":
    main()
