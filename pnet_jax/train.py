"""One training run, from configuration to summary, read in the order things happen."""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from pnet_jax import workdir as workdirs
from pnet_jax.analysis.count import count_macs, count_parameters
from pnet_jax.checkpoint.manager import Checkpoints
from pnet_jax.checkpoint.transfer import match_classes, transfer
from pnet_jax.config import Config, fingerprint
from pnet_jax.data.pipeline import train_batches
from pnet_jax.errors import UserError
from pnet_jax.evaluate import evaluate
from pnet_jax.models import init_variables
from pnet_jax.parallel.mesh import check_batch, to_devices
from pnet_jax.program import model_of
from pnet_jax.report.jsonl import Kind
from pnet_jax.report.plots import plot_curves
from pnet_jax.report.progress import Progress
from pnet_jax.report.summary import write_summary
from pnet_jax.report.writers import MetricWriters
from pnet_jax.run import Run
from pnet_jax.training.guards import CorruptImages, check_finite
from pnet_jax.training.state import TrainState, create_state

Record = Callable[[int, Kind, Mapping[str, float]], None]


def train(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """Trains, or goes on training from the last checkpoint, and returns what `summary.json` holds.

    Raises:
      UserError: if the configuration, the data, the devices and the work directory do not fit each
        other.
      TrainingError: if training cannot go on.
    """
    workdir = workdir.expanduser().absolute()
    run = Run.of(config)
    check_batch("global_batch_size", config.global_batch_size, run.mesh)
    facts = _facts(run)
    _announce(facts)
    # A new run claims its directory only once it could begin: a mistake in init_from leaves none.
    begun = (workdir / workdirs.CONFIG_FILE).exists()
    state = None if begun else _initial_state(run)
    workdirs.claim(workdir, config)
    workdirs.write_class_names(workdir, run.dataset.class_names)
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(workdir, config.checkpoint))
        start = checkpoints.latest_step()
        if start is None:
            start, state = 0, state or _initial_state(run)
        else:
            state = checkpoints.restore(start, run.program.state_shape)
            _say(f"continuing after step {start:,} of {run.plan.total_steps:,}")
        record = _open_metrics(stack, workdir, start)
        if start < run.plan.total_steps:
            _loop(run, state, start, record, checkpoints)
    return _finish(workdir, facts)


def _loop(
    run: Run, state: TrainState, start: int, record: Record, checkpoints: Checkpoints
) -> None:
    """Steps, and after a step in this order: log, evaluate, save. Resuming relies on the order."""
    plan, batch_size = run.plan, run.config.global_batch_size
    train_step = run.program.train_step()
    run_evaluation = _evaluation(run)
    batches = _train_stream(run, start)
    pending: list[dict[str, jax.Array]] = []
    shown: dict[str, str] = {}
    clock = _Clock()
    with Progress(
        plan.total_steps,
        initial_step=start,
        images_per_step=batch_size,
        description=run.config.model.name,
    ) as progress:
        progress.write("compiling; the next start takes the program from the cache")
        for step in range(start + 1, plan.total_steps + 1):
            batch = clock.fetch(batches)
            # Nothing but the batch may travel between host and device in a step.
            with jax.transfer_guard("disallow"):
                state, metrics = train_step(state, batch)
            pending.append(metrics)
            # At most two steps are under way, so that the bar tells the truth and buffers do not
            # pile up.
            jax.block_until_ready(pending[-2:][0])
            if step in plan.log_steps:
                means = _means(pending)
                pending = []
                check_finite(step, means)
                record(step, "train", _train_record(run, step, means))
                shown["loss"] = f"{means['loss']:.3f}"
                if secs := clock.secs_per_step(step):
                    waiting = clock.input_share()
                    shown["input"] = f"{waiting:.0%}"
                    timing = {"step_secs": secs, "images_per_sec": batch_size / secs}
                    record(step, "timing", timing | {"input_share": waiting})
            accuracies = None
            if step in plan.eval_steps:
                accuracies = run_evaluation(state)
                scalars = {f"eval/{name}": value for name, value in accuracies.items()}
                record(step, "eval", {"epoch": step / plan.steps_per_epoch, **scalars})
                shown["top1"] = f"{accuracies['top1']:.2%}"
            if step in plan.save_steps:
                checkpoints.save(step, state, accuracies)
            if step in plan.log_steps or step == start + 1:
                clock.start(step)
            progress.update(step, **shown)


class _Clock:
    """Seconds a step, evaluations, saves and the first step's compilation left out.

    Of these, those in which the loop waited for a batch: near 0, the accelerator is the limit;
    above some percent, the input is (`python -m pnet_jax.bench input` says what would help).
    """

    def __init__(self) -> None:
        self._since: tuple[int, float] | None = None
        self._waited_secs = 0.0

    def start(self, step: int) -> None:
        self._since, self._waited_secs = (step, time.perf_counter()), 0.0

    def fetch(self, batches: Iterator[dict[str, jax.Array]]) -> dict[str, jax.Array]:
        asked = time.perf_counter()
        batch = next(batches)
        self._waited_secs += time.perf_counter() - asked
        return batch

    def secs_per_step(self, step: int) -> float | None:
        if self._since is None or step <= self._since[0]:
            return None
        return (time.perf_counter() - self._since[1]) / (step - self._since[0])

    def input_share(self) -> float:
        assert self._since is not None
        return self._waited_secs / (time.perf_counter() - self._since[1])


def _initial_state(run: Run) -> TrainState:
    """Step 0: fresh weights, or those of the run `config.init_from` under the head of the kind."""
    variables = init_variables(run.program.model, jax.random.key(run.config.seed))
    if run.config.init_from is not None:
        variables = _transferred(run, variables, pathlib.Path(run.config.init_from).expanduser())
    create = functools.partial(create_state, optimizer=run.program.optimizer)
    return jax.jit(create, out_shardings=run.program.shardings.state)(variables)


def _transferred(run: Run, variables: Any, source: pathlib.Path) -> Any:
    with Checkpoints(source) as checkpoints:
        step = checkpoints.best_step()
        if step is None:
            raise UserError(
                f"config.init_from = {run.config.init_from!r} holds no checkpoint; name the work "
                f"directory of a run that has saved one."
            )
        pretrained, _ = checkpoints.restore_averages(step)
    # Routers that differ only in their last function have the same arrays.
    fields = workdirs.read_config(source)["model"]
    theirs = getattr(model_of(fields, run.config.data.num_classes), "routing", None)
    ours = getattr(run.program.model, "routing", None)
    if theirs != ours:
        raise UserError(
            f"config.init_from was trained with routing {theirs!r}, this run has {ours!r}; "
            f"set --config.model.routing={theirs}."
        )
    rows = None
    if run.config.head == "map":
        ours, there = run.dataset.class_names, workdirs.read_class_names(source)
        rows = match_classes(ours, there)
        new = [name for name, row in zip(ours, rows, strict=True) if row < 0]
        if len(new) == len(ours):
            raise UserError(
                f"config.init_from = {run.config.init_from!r} has none of the classes of this run "
                f"({ours[0]!r} for one); take --config.head=fresh."
            )
        if new:
            _say(f"{len(new)} classes are new there: {', '.join(new[:10])}")
    variables, notes = transfer(variables, pretrained, rows)
    _say(f"weights from step {step:,} of {source}; " + ", ".join(notes))
    return variables


def _train_stream(run: Run, start: int) -> Iterator[dict[str, jax.Array]]:
    data = run.config.data
    corrupt = CorruptImages(data.max_corrupt_images)

    def counted() -> Iterator[dict[str, np.ndarray]]:
        for batch in train_batches(
            run.train_records,
            run.reading(run.config.global_batch_size),
            seed=run.config.seed,
            start=start,
            area_min=data.crop_area_min,
            area_max=data.crop_area_max,
            repeats=run.config.augment.repeats,
        ):
            corrupt.add(batch.pop("index")[batch["weight"] == 0])
            yield batch

    return to_devices(counted(), run.program.shardings.batch)


def _evaluation(run: Run) -> Callable[[TrainState], dict[str, float]]:
    eval_step = run.program.eval_step()

    def run_evaluation(state: TrainState) -> dict[str, float]:
        return evaluate(
            eval_step,
            state.ema,
            state.step,
            run.eval_stream(),
            num_examples=len(run.eval_records),
        )

    return run_evaluation


def _means(pending: list[dict[str, jax.Array]]) -> dict[str, float]:
    """Each metric's mean over the steps since the last record: one transfer for all of them."""
    fetched = jax.device_get(pending)
    return {
        name: float(np.mean([metrics[name] for metrics in fetched], dtype=np.float64))
        for name in fetched[0]
    }


def _train_record(run: Run, step: int, means: dict[str, float]) -> dict[str, float]:
    return {
        "epoch": step / run.plan.steps_per_epoch,
        **{f"train/{name}": value for name, value in means.items()},
        "train/learning_rate": float(run.program.schedule(step - 1)),
    }


def _open_metrics(stack: contextlib.ExitStack, workdir: pathlib.Path, start: int) -> Record:
    """Where records go: to the files, in one of the processes."""
    if jax.process_index() == 0:
        return stack.enter_context(MetricWriters(workdir, resume_step=start)).write
    return lambda step, kind, scalars: None


def _facts(run: Run) -> dict[str, Any]:
    macs = count_macs(run.program.model, run.config.data.image_size)
    return {
        "model": run.config.model.name,
        "parameters": count_parameters(run.program.state_shape.params),
        "macs": macs.total,
        "image_size": run.config.data.image_size,
        "dataset": run.config.data.name,
        "label": run.config.data.label,
        "num_classes": run.config.data.num_classes,
        "train_images": len(run.train_records),
        "eval_images": len(run.eval_records),
        "global_batch_size": run.config.global_batch_size,
        "epochs": run.config.epochs,
        "steps": run.plan.total_steps,
        "init_from": run.config.init_from,
        "config_fingerprint": fingerprint(run.config),
    }


def _announce(facts: dict[str, Any]) -> None:
    devices = jax.devices()
    _say(
        f"{len(devices)} {devices[0].device_kind} · {facts['model']}, {facts['parameters']:,} "
        f"parameters, "
        f"{facts['macs'] / 1e6:.1f}M MACs at {facts['image_size']} px · {facts['dataset']}: "
        f"{facts['num_classes']:,} classes, {facts['train_images']:,} training and "
        f"{facts['eval_images']:,} evaluation images · {facts['steps']:,} steps of "
        f"{facts['global_batch_size']:,} images ({facts['epochs']:g} epochs)"
    )


def _finish(workdir: pathlib.Path, facts: dict[str, Any]) -> dict[str, Any]:
    if jax.process_index() != 0:
        return {}
    summary = write_summary(workdir, facts=facts)
    plot_curves(
        {f"{facts['model']}, {facts['num_classes']:,} classes": workdir}, workdir / "curves.png"
    )
    final = summary["eval"]["final"]
    _say(
        f"done: top-1 {final['eval/top1']:.2%}, top-5 {final['eval/top5']:.2%} on "
        f"{final['eval/count']:,} images; "
        f"see summary.json and curves.png in {workdir}"
    )
    return summary


def _say(line: str) -> None:
    if jax.process_index() == 0:
        print(line, flush=True)
