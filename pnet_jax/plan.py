"""The steps of a run: how many there are, and after which of them something happens."""

import dataclasses

from pnet_jax.config import Config
from pnet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Plan:
    """Steps count from 1; an event at step s happens after s updates."""

    steps_per_epoch: float
    total_steps: int
    eval_steps: frozenset[int]
    save_steps: frozenset[int]
    log_steps: frozenset[int]

    @classmethod
    def of(cls, config: Config, num_train_images: int) -> "Plan":
        """Every evaluation is followed by a save, and every save preceded by a log record.

        The log's running means start afresh after each record; were a save to fall between two, a
        resumed run would log other means than one that was never killed.

        Raises:
          UserError: if there are no training images.
        """
        if num_train_images == 0:
            raise UserError(
                f"The split {config.data.train_split!r} of {config.data.name} holds no images; set "
                f"config.data.train_split."
            )
        steps_per_epoch = num_train_images / config.global_batch_size
        total = max(1, round(config.epochs * steps_per_epoch))
        interval = config.eval_every_epochs * steps_per_epoch
        evals = {max(1, round(i * interval)) for i in range(1, int(total / interval) + 1)}
        eval_steps = {step for step in evals if step < total} | {total}
        save_steps = eval_steps | _multiples(config.checkpoint.every_steps, total)
        log_steps = save_steps | _multiples(config.log_every_steps, total)
        return cls(
            steps_per_epoch,
            total,
            frozenset(eval_steps),
            frozenset(save_steps),
            frozenset(log_steps),
        )


def _multiples(interval: int, total: int) -> set[int]:
    return set(range(interval, total + 1, interval))
