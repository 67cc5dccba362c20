"""The outcome of a run in one small file, `summary.json`."""

import json
import math
import numbers
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pnet_jax.report import atomic
from pnet_jax.report.goodput import read_goodput
from pnet_jax.report.jsonl import Record, read_records
from pnet_jax.report.writers import METRICS_FILE

SUMMARY_FILE = "summary.json"


def write_summary(workdir: Path, *, facts: Mapping[str, object]) -> dict[str, Any]:
    """Writes and returns what a run was and what came of it, from its `metrics.jsonl`.

        {"facts": {"model": "parameternet_300m", ...},
         "train": {"final": {"step": 800, "train/loss": 2.1, ...}},
         "eval": {"final": {"step": 800, "eval/top1": 0.31, ...},
                  "best": {"step": 720, "eval/top1": 0.32, ...}},
         "time": {"goodput": 0.93, "wall_secs": 812.0, "secs": {"training": 755.2, ...}, ...}}

    "best" is the evaluation with the highest eval/top1, the earliest of equals. A record that does
    not exist is null, and so is a number that is not finite (other languages' JSON has none). Facts
    keep their order, and nothing but "time" depends on the clock: equal runs write the same.

    Raises TypeError for a fact that JSON cannot hold.
    """
    path = workdir / METRICS_FILE
    records = read_records(path) if path.exists() else []
    evals = [record for record in records if record.kind == "eval"]
    summary = {
        "facts": {name: _json_value(value) for name, value in facts.items()},
        "train": {"final": _entry(_last(r for r in records if r.kind == "train"))},
        "eval": {"final": _entry(_last(evals)), "best": _entry(best_eval(evals))},
        "time": read_goodput(workdir),
    }
    text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    atomic.replace_file(workdir / SUMMARY_FILE, text.encode())
    return summary


def best_eval(evals: Iterable[Record]) -> Record | None:
    """The record with the highest finite eval/top1, the earliest of equals; None without any."""
    scored = [r for r in evals if math.isfinite(r.scalars.get("eval/top1", math.nan))]
    return max(scored, key=lambda record: record.scalars["eval/top1"], default=None)


def _last(records: Iterable[Record]) -> Record | None:
    return max(records, key=lambda record: record.step, default=None)


def _entry(record: Record | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {"step": record.step} | {n: _json_value(v) for n, v in record.scalars.items()}


def _json_value(value: object) -> Any:
    """`value` in JSON's types, NumPy numbers, paths and nested containers included."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(name): _json_value(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(entry) for entry in value]
    raise TypeError(f"a summary cannot hold {value!r} of type {type(value).__name__}")
