"""How much each loss term of a micro-batch counts in an optimizer step.

A loss term is a mean: over the rows that have what it needs, over predicted tokens, over boxes. A step sees several
micro-batches on several processes, and they have different numbers of those. What is trained is the mean over all of
them: each micro-batch's mean counts by its number, so that 1 x 8, 8 x 1 and two processes with 4 rows are one thing.

The number is known before the model runs, from the batch alone: a model says it with `term_counts(batch)`. A term that
it does not name, and every term of a model without that method, counts by the rows of the micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

__all__ = ["TermShares", "batch_rows", "term_counts"]

Counts = dict[str, Tensor | float]


def batch_rows(batch: Mapping[str, Any]) -> int:
    """Return the rows of a batch: the first dimension of its first tensor."""
    return next(value for value in batch.values() if isinstance(value, Tensor)).shape[0]


def term_counts(model: PreTrainedModel, names: Sequence[str], batch: Mapping[str, Any]) -> Counts:
    """Return what each loss term is a mean over in a batch: a number, or a [] tensor on the batch's device.

    Args:
        model: not wrapped.
        names: loss terms.
        batch: what the model is called with.
    """
    own = model.term_counts(batch) if hasattr(model, "term_counts") else {}
    rows = float(batch_rows(batch))
    return {name: own.get(name, rows) for name in names}


class TermShares:
    """The share of each micro-batch in an optimizer step, by loss term.

    A share is 1 where all micro-batches count the same: the step's loss is the mean over its micro-batches and
    processes of `share * term`.

    Args:
        names: loss terms, the same on every process.
        accelerator: accelerate's `Accelerator`.
    """

    def __init__(self, names: Sequence[str], accelerator: Accelerator) -> None:
        self.names, self.accelerator = tuple(names), accelerator
        self._totals: Counts | None = None
        self._parts = 1

    def begin(self, model: PreTrainedModel, batches: Sequence[Mapping[str, Any]]) -> None:
        """Count the micro-batches of a step, over all processes; every process must call it at the same time."""
        self._parts = len(batches) * self.accelerator.num_processes
        self._totals = None
        if self._parts <= 1:
            return
        counts = [term_counts(model, self.names, batch) for batch in batches]
        totals: Counts = {name: sum(count[name] for count in counts) for name in self.names}
        if self.accelerator.num_processes > 1:
            device = self.accelerator.device
            own = torch.stack([torch.as_tensor(totals[name], dtype=torch.float32).to(device) for name in self.names])
            totals = dict(zip(self.names, self.accelerator.reduce(own, reduction="sum").unbind(), strict=True))
        self._totals = totals

    def of(self, counts: Counts) -> Counts:
        """Return the shares of a micro-batch by its `term_counts`; 0 where the whole step has nothing for a term."""
        if self._totals is None:
            return dict.fromkeys(self.names, 1.0)
        return {name: _share(counts[name], self._totals[name], self._parts) for name in self.names}


def _share(count: Tensor | float, total: Tensor | float, parts: int) -> Tensor | float:
    if isinstance(total, Tensor):
        return count * parts / total.clamp_min(torch.finfo(torch.float32).tiny)  # 0 of 0 is 0
    return count * parts / total if total else 0.0
