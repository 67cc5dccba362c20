"""Random kills of a run of two processes, which must end like one that was never killed.

    python -m tests.soak [--kills=20] [--seed=N]

`make soak` runs it. Most of its time are the starts: a quarter of an hour on two idle cores.
"""

import argparse
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import time

import numpy as np

from pnet_jax.data import emoji
from tests.processes import Launcher, Rank, short_config
from tests.tiny_run import NUM_CLASSES, NUM_EVAL, NUM_TRAIN, Shell, shell_environment

# 300 steps.
FIELDS = ("epochs=24", "eval_every_epochs=3", "checkpoint.every_steps=10")


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
    """Compares runs that were killed so many times with one that was not."""
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
        launcher.finish(reference, *FIELDS, count=2)
        for number in range(1, kills + 1):
            told = disturb(launcher.start(workdir, *FIELDS, count=2), rng)
            left = (kills - number) * (time.monotonic() - began) / (number + 1)
            print(f"{number}/{kills}: {told}; about {left / 60:.0f} min left", flush=True)
            if (workdir / "summary.json").exists():
                print("a run was done before its next kill; another one ...", flush=True)
                check(workdir, reference)
                shutil.rmtree(workdir)
        print("to the end ...", flush=True)
        launcher.finish(workdir, *FIELDS, count=2)
        check(workdir, reference)
    finally:
        launcher.kill_all()
    print(f"after {kills} kills all metrics are those of a run never killed")
    return 0


def check(workdir: pathlib.Path, reference: pathlib.Path) -> None:
    """Exits unless both runs left the same metrics, byte for byte."""
    for name in ("metrics.jsonl", "metrics_train.csv", "metrics_eval.csv"):
        if (workdir / name).read_bytes() != (reference / name).read_bytes():
            raise SystemExit(f"{name} differs from that of the run without kills")


def disturb(ranks: list[Rank], rng: np.random.Generator) -> str:
    """Sends SIGKILL or SIGTERM to one process at a random time, and waits for the end of both."""
    chosen = int(rng.integers(len(ranks)))
    number = signal.SIGKILL if rng.random() < 0.7 else signal.SIGTERM
    # One of four at the start, the others within a second of a step.
    starting = rng.random() < 0.25
    limit = time.monotonic() + (rng.uniform(0, 10) if starting else 300)
    while time.monotonic() < limit and ": step " not in ranks[0].said():
        time.sleep(0.05)
        if any(rank.process.poll() is not None for rank in ranks):
            break
    if not starting:
        time.sleep(rng.uniform(0, 1))
    ranks[chosen].process.send_signal(number)
    codes = [rank.end(timeout_secs=180) for rank in ranks]
    allowed = {0, 1, 42, -signal.SIGKILL, -signal.SIGTERM}
    if not set(codes) <= allowed or any("Traceback" in rank.said() for rank in ranks):
        raise SystemExit("\n".join(rank.said() for rank in ranks))
    steps = re.findall(r"step (\d+)", ranks[0].said())
    moment = "at the start" if starting else "in training"
    last = steps[-1] if steps else "none"
    return f"{number.name} to process {chosen} {moment}, exit codes {codes}, last step told: {last}"


if __name__ == "__main__":
    sys.exit(main())
