"""How fast a stage trains, and the most memory that it took: two numbers in each log line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from hfvla.training.trainer.memory import peak_bytes

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

__all__ = ["Pace", "callback_scalars"]

_GIGA = 1e9


class Pace(TrainerCallback):
    """Counts optimizer steps and the seconds that they took; evaluations, checkpoints and log lines do not count.

    Waiting for data does: a step lasts from the end of what came before it to its own end.
    """

    def __init__(self) -> None:
        self._steps, self._seconds, self._mark = 0, 0.0, time.perf_counter()
        self._samples_a_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._samples_a_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        self._steps, self._seconds = 0, 0.0
        self._start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count the step."""
        self._steps += 1
        self._seconds += time.perf_counter() - self._mark
        self._start()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Leave the writing of the line out."""
        self._start()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the evaluation out."""
        self._start()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Leave the checkpoint out."""
        self._start()

    def scalars(self) -> dict[str, float]:
        """Return what happened since the last call: samples a second over all processes, and the peak of memory."""
        found = {"peak_memory_gb": peak_bytes() / _GIGA}
        if self._steps and self._seconds > 0:
            found = {"samples_per_second": self._steps * self._samples_a_step / self._seconds, **found}
        self._steps, self._seconds = 0, 0.0
        return found

    def _start(self) -> None:
        self._mark = time.perf_counter()


def callback_scalars(trainer: Trainer) -> dict[str, float]:
    """Return what the callbacks of a trainer that have `scalars()` add to a log line."""
    found: dict[str, float] = {}
    for callback in trainer.callback_handler.callbacks:
        if hasattr(callback, "scalars"):
            found |= callback.scalars()
    return found
