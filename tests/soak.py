"""Random kills of a run of two processes, which must end like one that was never killed.

    python -m tests.soak [--kills=20] [--seed=N]

`make soak` runs it. Most of its time are the starts: a quarter of an hour on two idle cores.
"""

import argparse
import pathlib
import signal
import sys
import tempfile
import time

import numpy as np

from pnet_jax.data import emoji
from tests.processes import STEPS, Launcher, Rank, short_config
from tests.tiny_run import NUM_CLASSES, NUM_EVAL, NUM_TRAIN, Shell, shell_environment

SAME_FILES = ("metrics.jsonl", "metrics_train.csv", "metrics_eval.csv")


def main() -> int:
    """Runs the soak and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description="Random kills of a run of two processes."
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="pnet_soak_") as directory:
        return soak(pathlib.Path(directory), args.kills, np.random.default_rng(args.seed))


def soak(directory: pathlib.Path, kills: int, rng: np.random.Generator) -> int:
    """Compares a run that was killed so many times with one that was not."""
    emoji.build(
        directory,
        num_train=NUM_TRAIN,
        num_validation=NUM_EVAL,
        num_classes=NUM_CLASSES,
        processes=1,
    )
    config = directory / "short.py"
    config.write_text(short_config(directory))
    launcher = Launcher(Shell(config, shell_environment(directory)), directory)
    reference, workdir = directory / "reference", directory / "run"
    began = time.monotonic()
    try:
        print("a run without kills ...", flush=True)
        launcher.finish(reference, count=2)
        for number in range(1, kills + 1):
            told = disturb(launcher.start(workdir, count=2), workdir, rng)
            left = (kills - number) * (time.monotonic() - began) / (number + 1)
            print(f"{number}/{kills}: {told}; about {left / 60:.0f} min left", flush=True)
        print("to the end ...", flush=True)
        launcher.finish(workdir, count=2)
    finally:
        launcher.kill_all()
    for name in SAME_FILES:
        if (workdir / name).read_bytes() != (reference / name).read_bytes():
            print(f"{name} differs from that of the run without kills", file=sys.stderr)
            return 1
    print(f"after {kills} kills the metrics of {STEPS} steps are those of a run never killed")
    return 0


def disturb(ranks: list[Rank], workdir: pathlib.Path, rng: np.random.Generator) -> str:
    """Sends SIGKILL or SIGTERM to one process at a random time, and waits for the end of both."""
    chosen = int(rng.integers(len(ranks)))
    number = signal.SIGKILL if rng.random() < 0.7 else signal.SIGTERM
    # One kill of four at the start, the others some time after the first step.
    starting, delay = rng.random() < 0.25, rng.uniform(0, 4)
    limit = time.monotonic() + (2 * delay if starting else 300)
    while time.monotonic() < limit and "step" not in ranks[0].said().partition("compiling")[2]:
        if any(rank.process.poll() is not None for rank in ranks):
            raise SystemExit("\n".join(rank.said() for rank in ranks))
        time.sleep(0.05)
    if not starting:
        time.sleep(delay / 4)
    ranks[chosen].process.send_signal(number)
    codes = [rank.end(timeout_secs=180) for rank in ranks]
    allowed = {0, 1, 42, -signal.SIGKILL, -signal.SIGTERM}
    if not set(codes) <= allowed or any("Traceback" in rank.said() for rank in ranks):
        raise SystemExit("\n".join(rank.said() for rank in ranks))
    steps = max(
        (int(path.name) for path in workdir.glob("checkpoints/[0-9]*") if path.name.isdigit()),
        default=0,
    )
    moment = "at the start" if starting else "in training"
    return f"{number.name} to process {chosen} {moment}, exit codes {codes}, saved: step {steps}"


if __name__ == "__main__":
    sys.exit(main())
