"""The checkpoints of one work directory, by Orbax: asynchronous; the last and the best are kept."""

import logging
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from pnet_jax.config import CheckpointConfig
from pnet_jax.errors import Preempted, UserError

# What decides which checkpoint is the best.
BEST_METRIC = "top1"


def _is_worth_telling(record: logging.LogRecord) -> bool:
    """Whether a record is an error, or not Orbax's.

    Orbax logs every step of every save, and warns of what is meant here: a save that waits for the
    one before, a checkpoint without metrics, opening for reading.
    """
    return record.levelno >= logging.ERROR or "orbax" not in record.pathname


logging.getLogger("absl").addFilter(_is_worth_telling)


class Checkpoints:
    """Checkpoints under `workdir/checkpoints`; a context manager that waits for the last save."""

    def __init__(self, workdir: pathlib.Path, config: CheckpointConfig | None = None) -> None:
        """Opens them for reading, or with a `config` for reading and writing."""
        self._workdir = workdir
        policy = None
        if config is not None:
            policies: list[Any] = [preservation_policy.LatestN(config.keep_last)]
            if config.keep_best > 0:
                best = preservation_policy.BestN(
                    get_metric_fn=lambda metrics: metrics[BEST_METRIC],
                    n=config.keep_best,
                    keep_checkpoints_without_metrics=False,
                )
                policies.append(best)
            policy = preservation_policy.AnyPreservationPolicy(policies)
        self._manager = ocp.CheckpointManager(
            (workdir / "checkpoints").absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                create=config is not None,
                read_only=config is None,
                # A run that was killed while saving leaves an unfinished directory behind.
                cleanup_tmp_directories=config is not None,
                best_fn=lambda metrics: metrics[BEST_METRIC],
                best_mode="max",
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        if exc_type not in (None, Preempted) and jax.process_count() > 1:
            # Waiting is for the other processes, which may be gone or know of nothing.
            return
        self._manager.wait_until_finished()
        self._manager.close()

    def latest_step(self) -> int | None:
        """The newest finished checkpoint's step, or None."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step with the best `BEST_METRIC`, the latest one if none was evaluated, or None."""
        best = self._manager.best_step()
        return self.latest_step() if best is None else best

    def steps(self) -> list[int]:
        """All finished checkpoints."""
        return sorted(self._manager.all_steps())

    def choose(self, step: int | None) -> int:
        """The step asked for, or the best one if None.

        Raises:
          UserError: if there is none such; the sentence lists those that there are.
        """
        steps = self.steps()
        chosen = self.best_step() if step is None else step
        if chosen is None or chosen not in steps:
            found = ", ".join(map(str, steps)) or "none"
            wanted = "" if step is None else f" of step {step}"
            raise UserError(f"{self._workdir} has no checkpoint{wanted}; it has: {found}.")
        return chosen

    def save(self, step: int, state: Any, metrics: dict[str, float] | None) -> None:
        """Starts saving; the state may be donated as soon as this returns."""
        self._manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardSave(state)),
            metrics=metrics,
            force=True,
        )

    def was_evaluated(self, step: int) -> bool:
        """Whether the checkpoint was saved with metrics."""
        return self._manager.metrics(step) is not None

    def replace(self, step: int, state: Any, metrics: dict[str, float]) -> None:
        """Saves a checkpoint again, that of a run that had to go before it was evaluated."""
        self._manager.delete(step)
        self.save(step, state, metrics)

    def restore(self, step: int, target: Any) -> Any:
        """The state at `step` in the structure and shardings of `target` (ShapeDtypeStructs)."""
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        return self._manager.restore(step, args=args)["state"]

    def restore_averages(self, step: int) -> tuple[Any, Any]:
        """The `ema` and the raw variables of a checkpoint as numpy arrays, whatever network's.

        Both are `{"params": ..., "batch_stats": ...}`.
        """
        metadata = self._manager.item_metadata(step)["state"]
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape,
                leaf.dtype,
                sharding=jax.sharding.SingleDeviceSharding(jax.local_devices()[0]),
            ),
            metadata.tree if hasattr(metadata, "tree") else metadata,
        )
        state = jax.device_get(self.restore(step, target))
        raw = {"params": state["params"], "batch_stats": state["batch_stats"]}
        return state["ema"], raw
