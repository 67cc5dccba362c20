"""One training run, from configuration to summary, read in the order things happen."""

import contextlib
import dataclasses
import functools
import io
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
import numpy as np

from pnet_jax import workdir as workdirs
from pnet_jax.analysis.count import count_macs, count_parameters
from pnet_jax.checkpoint.manager import Checkpoints
from pnet_jax.checkpoint.transfer import match_classes, transfer
from pnet_jax.config import Config, fingerprint
from pnet_jax.data.pipeline import train_batches
from pnet_jax.errors import Preempted, UserError
from pnet_jax.evaluate import evaluate
from pnet_jax.models import init_variables
from pnet_jax.parallel.distributed import Processes
from pnet_jax.parallel.mesh import check_batch, to_devices
from pnet_jax.parallel.preemption import Points
from pnet_jax.program import model_of
from pnet_jax.report.goodput import Goodput
from pnet_jax.report.jsonl import Kind
from pnet_jax.report.plots import plot_curves
from pnet_jax.report.profile import Profile
from pnet_jax.report.progress import Progress
from pnet_jax.report.summary import write_summary
from pnet_jax.report.tables import format_table
from pnet_jax.report.writers import MetricWriters
from pnet_jax.run import Run
from pnet_jax.training.guards import CorruptImages, check_finite
from pnet_jax.training.state import TrainState, create_state
from pnet_jax.training.step import EvalStep

Record = Callable[[int, Kind, Mapping[str, float]], None]


def train(
    config: Config, workdir: pathlib.Path, processes: Processes | None = None
) -> dict[str, Any]:
    """Trains, or goes on training from the last checkpoint, and returns what `summary.json` holds.

    `processes` are those of the run; None is this one alone, which SIGTERM ends at once.

    Raises:
      UserError: if the configuration, the data, the devices and the work directory do not fit each
        other.
      TrainingError: if training cannot go on.
      Preempted: after SIGTERM, with the state saved.
    """
    began = time.time()
    workdir = workdir.expanduser().absolute()
    processes = processes or Processes(config.distributed, place=None)
    run = Run.of(config)
    processes.agree("the data set", run.dataset.digest())
    check_batch("global_batch_size", config.global_batch_size, run.mesh)
    # Nothing is compiled yet, but accumulate_steps is found to fit the batch or not.
    run.program.train_step()
    facts = _facts(run)
    _announce(facts)
    _show_sharding(run)
    # A new run claims its directory only once it could begin: a mistake in init_from leaves none.
    begun = (workdir / workdirs.CONFIG_FILE).exists()
    processes.agree("the work directory", "begun" if begun else "new")
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
        processes.write_heartbeats(workdir / "heartbeats")
        # SIGTERM may have cut an evaluation short.
        evaluation_owed = start in run.plan.eval_steps and not checkpoints.was_evaluated(start)
        if start < run.plan.total_steps or evaluation_owed:
            goodput = Goodput(
                workdir if processes.index == 0 else None, resume_step=start, since=began
            )
            loop = _Loop(run, workdir, record, checkpoints, processes.points, goodput)
            loop.run_all(state, start, evaluation_owed=evaluation_owed)
    return _finish(workdir, facts)


@dataclasses.dataclass
class _Loop:
    """Steps, and after a step in this order: log, evaluate, save. Resuming relies on the order."""

    run: Run
    workdir: pathlib.Path
    record: Record
    checkpoints: Checkpoints
    points: Points
    goodput: Goodput

    def run_all(self, state: TrainState, start: int, *, evaluation_owed: bool) -> None:
        """The steps after `start`. Raises Preempted after SIGTERM, with the state saved."""
        plan, batch_size = self.run.plan, self.run.config.global_batch_size
        # Metrics of steps that no record tells of yet.
        pending: list[dict[str, Any]] = workdirs.read_interrupted(self.workdir, start)
        shown: dict[str, str] = {}
        clock = _Clock(self.goodput)
        with contextlib.ExitStack() as stack:
            stack.callback(self.goodput.write)
            progress = stack.enter_context(
                Progress(
                    plan.total_steps,
                    initial_step=start,
                    images_per_step=batch_size,
                    description=self.run.config.model.name,
                    stream=None if jax.process_index() == 0 else io.StringIO(),
                )
            )
            progress.write("compiling; the next start takes the program from the cache")
            self.goodput.enter("compiling")
            # Both before the first step: SIGTERM leaves no time for a compiler.
            train_step = self.run.program.compiled_train_step()
            eval_step = self.run.program.compiled_eval_step()
            profile = stack.enter_context(Profile(self.run.config.profile, self.workdir))
            if evaluation_owed:
                self.checkpoints.replace(start, state, self._evaluate(eval_step, state, start))
            batches = _train_stream(self.run, start)
            for step in range(start + 1, plan.total_steps + 1):
                if self.points.stop_here(f"step {step}"):
                    self._stop(state, step - 1, pending)
                profile.before(step)
                self.goodput.begin_step()
                batch = next(batches)
                self.goodput.enter("training")
                # Nothing but the batch may travel between host and device in a step.
                with jax.transfer_guard("disallow"):
                    state, metrics = train_step(state, batch)
                self.points.fed()
                pending.append(metrics)
                # At most two steps are under way, so that the bar tells the truth and buffers do
                # not pile up.
                jax.block_until_ready(pending[-2:][0])
                self.goodput.end_step()
                if step in plan.log_steps:
                    means = _means(pending)
                    pending = []
                    check_finite(step, means)
                    self.goodput.write()
                    self.record(step, "train", _train_record(self.run, step, means))
                    shown["loss"] = f"{means['loss']:.3f}"
                    if timing := clock.timing(step):
                        shown["input"] = f"{timing['input_share']:.0%}"
                        timing["images_per_sec"] = batch_size / timing["step_secs"]
                        percentiles = self.goodput.step_percentiles()
                        self.record(step, "timing", timing | percentiles)
                accuracies = None
                if step in plan.eval_steps:
                    accuracies = self._evaluate(eval_step, state, step)
                    shown["top1"] = f"{accuracies['top1']:.2%}"
                if step in plan.save_steps:
                    self._save(state, step, accuracies)
                if step in plan.log_steps or step == start + 1:
                    clock.start(step)
                progress.update(step, **shown)

    def _evaluate(self, eval_step: EvalStep, state: TrainState, step: int) -> dict[str, float]:
        """The accuracies, recorded; after SIGTERM the state is saved without them."""
        self.goodput.enter("evaluating")

        def batches() -> Iterator[Any]:
            for batch in self.run.eval_stream():
                if self.points.stop_here(f"evaluation after step {step}"):
                    self._stop(state, step, [])
                yield batch

        accuracies = evaluate(
            eval_step,
            state.ema,
            state.step,
            batches(),
            num_examples=len(self.run.eval_records),
        )
        scalars = {f"eval/{name}": value for name, value in accuracies.items()}
        self.record(step, "eval", {"epoch": step / self.run.plan.steps_per_epoch, **scalars})
        return accuracies

    def _save(self, state: TrainState, step: int, accuracies: dict[str, float] | None) -> None:
        self.goodput.enter("saving")
        self.checkpoints.save(step, state, accuracies)
        self.goodput.saved(step)

    def _stop(self, state: TrainState, step: int, pending: list[dict[str, Any]]) -> NoReturn:
        """After SIGTERM: saves the state after `step`, which no other save may have done."""
        if step not in self.checkpoints.steps() and step > 0:
            if pending:
                check_finite(step, _means(pending))
            workdirs.write_interrupted(self.workdir, step, jax.device_get(pending))
            self._save(state, step, None)
        raise Preempted(
            f"Stopped by SIGTERM after step {step:,} of {self.run.plan.total_steps:,}; the same "
            f"command continues from there."
        )


class _Clock:
    """Seconds a step, evaluations, saves and the first step's compilation left out.

    Of these, those in which the loop waited for a batch: near 0, the accelerator is the limit;
    above some percent, the input is (`python -m pnet_jax.bench input` says what would help).
    """

    def __init__(self, goodput: Goodput) -> None:
        self._goodput = goodput
        self._since: tuple[int, float, float] | None = None

    def start(self, step: int) -> None:
        self._since = (step, time.perf_counter(), self._goodput.spent("input"))

    def timing(self, step: int) -> dict[str, float]:
        """`step_secs` and `input_share` since the start; empty if there was none before `step`."""
        if self._since is None or step <= self._since[0]:
            return {}
        since_step, since_secs, since_input = self._since
        secs = time.perf_counter() - since_secs
        return {
            "step_secs": secs / (step - since_step),
            "input_share": (self._goodput.spent("input") - since_input) / secs,
        }


def _initial_state(run: Run) -> TrainState:
    """Step 0: fresh weights, or those of the run `config.init_from` under the head of the kind."""
    variables = init_variables(run.program.model, jax.random.key(run.config.seed))
    # The same in every process, each of which has put them on a device of its own.
    variables = jax.device_get(variables)
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


def _show_sharding(run: Run) -> None:
    """How parameters are split, if they are."""
    if run.mesh.shape["fsdp"] > 1:
        _say(format_table(run.program.sharding_plan.table()))


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
