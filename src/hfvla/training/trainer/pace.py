"""How fast a stage trains, how long it waits for data, and the most memory that it took: numbers in each log line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from hfvla.training.trainer.memory import peak_bytes

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

__all__ = ["Pace", "callback_scalars"]

_GIGA = 1e9


class Pace(TrainerCallback):
    """Counts optimizer steps and the seconds that they took; evaluations, checkpoints and log lines do not count.

    Waiting for data does: a step lasts from the end of what came before it to its own end. How long steps waited is
    counted, too, without the first batch of a process, for which its workers have to start.
    """

    def __init__(self) -> None:
        self._steps, self._seconds, self._mark = 0, 0.0, time.perf_counter()
        self._samples_a_step = 0
        self._waited, self._first_wait_s = 0.0, -1.0
        self._whole, self._whole_waited = 0.0, 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._samples_a_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        self._steps, self._seconds, self._waited, self._first_wait_s = 0, 0.0, 0.0, -1.0
        self._whole, self._whole_waited = 0.0, 0.0
        self._start()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count what happens inside as waiting for the batches of a step."""
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            if self._first_wait_s < 0:
                self._first_wait_s = seconds
            else:
                self._waited += seconds
                self._whole_waited += seconds

    @property
    def data_share(self) -> float | None:
        """Share of the steps' time that went by waiting for data, first batch apart; None before a second step."""
        seconds = self._whole - max(self._first_wait_s, 0.0)
        return self._whole_waited / seconds if self._whole_waited and seconds > 0 else None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count the step."""
        self._steps += 1
        seconds = time.perf_counter() - self._mark
        self._seconds += seconds
        self._whole += seconds
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
        """Return what happened since the last call: samples a second, seconds a step waited for data, peak memory."""
        found = {"peak_memory_gb": peak_bytes() / _GIGA}
        if self._steps and self._seconds > 0:
            speed = self._steps * self._samples_a_step / self._seconds
            found = {"samples_per_second": speed, "data_s": self._waited / self._steps, **found}
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
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
