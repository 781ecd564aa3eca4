"""A loss or a gradient that is no number: found in its step, on all processes at once, and not gone on with."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hfvla.errors import RecipeError, TrainingError

if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["FiniteCheck", "check_best", "comparable_metric", "step_rows"]

logger = logging.getLogger(__name__)

_MOST_SCALER_SKIPS = 50  # in a row; a loss scale of 2 ** 16 has then shrunk to 2 ** -34
_SHOWN = 4


class FiniteCheck:
    """Looks once an optimizer step whether its loss terms and its gradient are numbers.

    Costs one reading from the device a step, and one small exchange between processes.

    Args:
        trainer: the trainer, with `stage`, `accelerator`, `args` and `model`.
        allowed (`int`): steps that may be left out instead of ending the stage.

    Attributes:
        skipped (`int`): steps left out, since the stage began.
        scaled (`int`): steps that fp16's loss scaler left out, as it does while it finds its scale.

    Raises:
        RecipeError: steps may be left out, and DeepSpeed steps by itself.
    """

    def __init__(self, trainer: Trainer, allowed: int = 0) -> None:
        self.trainer, self.allowed = trainer, allowed
        self.skipped = self.scaled = 0
        self._scaled_in_a_row = 0
        self._terms: list[dict[str, Tensor]] = []
        if allowed and trainer.is_deepspeed_enabled:
            raise RecipeError(
                f"stage '{trainer.stage.name}': skip_nonfinite cannot hold back a step of DeepSpeed",
                got=allowed,
                fix="Leave it out of this stage; the stage then ends at the first loss that is no number.",
            )

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Note the loss terms of a micro-batch, without waiting for the device."""
        self._terms.append({name: term.detach() for name, term in terms.items()})

    def step_ends(self, norm: Any) -> bool:
        """Decide on a step, its gradients ready; every process must call it at the same time.

        Args:
            norm: norm of the gradient, the same on every process; None where it is not known.

        Returns:
            `bool`: False: the step must be left out.

        Raises:
            TrainingError: more of them than allowed.
        """
        terms, self._terms = self._terms, []
        of_losses, of_gradient = self._found(terms, norm)
        if of_gradient and not of_losses and self._scaler_skips():
            self.scaled, self._scaled_in_a_row = self.scaled + 1, self._scaled_in_a_row + 1
            if self._scaled_in_a_row <= _MOST_SCALER_SKIPS:
                return True  # the scaler leaves the step out
        elif not (of_losses or of_gradient):
            self._scaled_in_a_row = 0
            return True
        else:
            self.skipped += 1
        error = self._error(self._described(terms, norm))
        if self._scaled_in_a_row > _MOST_SCALER_SKIPS or self.skipped > self.allowed:
            raise error
        logger.warning("left out, %d of at most %d: %s", self.skipped, self.allowed, error)
        return False

    def _found(self, terms: Sequence[Mapping[str, Tensor]], norm: Any) -> tuple[bool, bool]:
        accelerator = self.trainer.accelerator
        values = [value.float() for micro_batch in terms for value in micro_batch.values()]
        device = values[0].device if values else accelerator.device
        losses = torch.stack(values) if values else torch.zeros(1, device=device)
        gradient = torch.as_tensor(0.0 if norm is None else norm, dtype=torch.float32).to(device)
        found = torch.stack([~losses.isfinite().all(), ~gradient.isfinite()]).to(torch.int32)
        if accelerator.num_processes > 1:
            found = found.to(accelerator.device)
            torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        of_losses, of_gradient = found.tolist()
        return bool(of_losses), bool(of_gradient)

    def _scaler_skips(self) -> bool:
        trainer = self.trainer
        return trainer.accelerator.scaler is not None or (trainer.is_deepspeed_enabled and trainer.args.fp16)

    def _described(self, terms: Sequence[Mapping[str, Tensor]], norm: Any) -> list[str]:
        """Return what is wrong on any process, one line each: term, value and rows."""
        rows = None if self.allowed else self.trainer.step_rows()  # reads the order of the rows anew, which goes on
        lines = []
        for number, micro_batch in enumerate(terms):
            for name, value in micro_batch.items():
                if not bool(value.isfinite()):
                    line = f"'{name}' is {value.item()}"
                    line += f" on process {self.trainer.args.process_index}" if self._several() else ""
                    line += f" in micro-batch {number + 1}" if len(terms) > 1 else ""
                    line += f", rows {rows[number]}" if rows is not None and number < len(rows) else ""
                    lines.append(line)
        if self._several():
            gathered: list[list[str]] = [[] for _ in range(self.trainer.accelerator.num_processes)]
            torch.distributed.all_gather_object(gathered, lines)
            lines = [line for found in gathered for line in found]
        return lines or [f"the norm of the gradient is {float(norm)}, the losses are numbers"]

    def _several(self) -> bool:
        return self.trainer.accelerator.num_processes > 1

    def _error(self, lines: Sequence[str]) -> TrainingError:
        more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        scaler = f" ({self._scaled_in_a_row} steps in a row; fp16's loss scale has run out)"
        return TrainingError(
            f"stage '{self.trainer.stage.name}', step {self.trainer.state.global_step + 1}: "
            + ("; ".join(lines[:_SHOWN]) + more)
            + (scaler if self._scaled_in_a_row > _MOST_SCALER_SKIPS else ""),
            expected="finite losses and gradients",
            fix="Lower the learning rate, clip with args.max_grad_norm, or look at these rows; skip_nonfinite lets a "
            "stage leave out some steps.",
        )

    def state(self) -> dict[str, int]:
        """Return the counts, as JSON."""
        return {"skipped": self.skipped, "scaled": self.scaled}

    def load_state(self, state: Mapping[str, int]) -> None:
        """Go on from what `state` returned."""
        self.skipped, self.scaled = state["skipped"], state["scaled"]


def step_rows(trainer: Trainer) -> list[list[int]] | None:
    """Return the rows of the training data in each of this process's micro-batches of the step, or None.

    The order of an epoch's rows is read anew; where only the sampler that is being used knows it, it stays unknown.
    """
    loader, timeline = trainer.callback_handler.train_dataloader, trainer.timeline
    batches = getattr(loader, "batch_sampler", None)
    if not hasattr(trainer.train_dataset, "__len__"):  # a stream: its rows have no numbers
        return None
    if batches is None or timeline is None or trainer._order is not None or not hasattr(loader, "set_epoch"):
        return None
    epoch, parts = int(trainer.state.epoch or 0), trainer.args.gradient_accumulation_steps
    loader.set_epoch(epoch)
    first = (trainer.state.global_step - epoch * timeline.steps_per_epoch) * parts
    found = [[int(row) for row in rows] for rows in islice(batches, first, first + parts)]
    packed = getattr(trainer.train_dataset, "row_numbers", None)  # several rows in one sequence
    return found if packed is None else [[row for pack in packs for row in packed(pack)] for packs in found]


def comparable_metric(trainer: Trainer, metrics: Mapping[str, float]) -> bool:
    """Tell whether an evaluation may become the best one: not if what `keep_best` looks at is no number.

    Raises:
        TrainingError: it looks at a loss; weights that have none would not get better.
    """
    name = trainer.args.metric_for_best_model
    name = name if name is None or name.startswith("eval_") else f"eval_{name}"
    if name is None or name not in metrics or math.isfinite(metrics[name]):
        return True
    if name.startswith("eval_loss"):
        raise TrainingError(
            f"stage '{trainer.stage.name}': the {name} that keep_best looks at is no number",
            where=f"step {trainer.state.global_step}",
            got=metrics[name],
            fix="Look at the validation rows, or lower the learning rate.",
        )
    logger.warning(
        "stage '%s', step %d: %s is %s, so this evaluation cannot be the best",
        trainer.stage.name, trainer.state.global_step, name, metrics[name],
    )  # fmt: skip
    return False


def check_best(trainer: Trainer) -> None:
    """Refuse to end a stage whose `keep_best` has never seen a number.

    Raises:
        TrainingError: so it is.
    """
    name, args = trainer.args.metric_for_best_model, trainer.args
    if not args.load_best_model_at_end or name is None or trainer.state.best_metric is not None:
        return
    name = name if name.startswith("eval_") else f"eval_{name}"
    if any(name in line for line in trainer.state.log_history):
        raise TrainingError(
            f"stage '{trainer.stage.name}': keep_best: {name} was no number in any evaluation",
            fix="Keep by another metric, or look at the validation rows.",
        )
