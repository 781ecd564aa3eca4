"""The rows of an evaluation, each once, however many processes share them.

accelerate fills the last batch of each process up with rows from the beginning, so that all have as many and as large
ones. Metrics are computed on gathered predictions, where it takes them off again; a loss is computed on a process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["filled_up", "own_batch"]


def own_batch(trainer: Trainer, batch: dict[str, Any]) -> tuple[dict[str, Any], int, int]:
    """Return a process's batch without the rows that fill it up.

    Args:
        trainer: while its evaluation loop runs.
        batch: as the data loader gives it.

    Returns:
        `tuple`: the batch, how many rows of it count, and how many it had. Where none counts it is unchanged: every
        process must still go forward.
    """
    state, rows, rank = trainer.accelerator.gradient_state, trainer.args.eval_batch_size, trainer.args.process_index
    loader = trainer.callback_handler.eval_dataloader
    dataset: Any = getattr(loader, "dataset", None)
    rest = state.remainder if state.end_of_dataloader else 0  # rows of all processes in this last turn
    if trainer.args.world_size == 1 or rest <= 0 or not hasattr(dataset, "__len__"):
        return batch, rows, rows
    own = min(max(rest - rank * rows, 0), rows)
    if own in (0, rows):
        return batch, own, rows
    first = len(dataset) - rest + rank * rows
    return loader.collate_fn([dataset[index] for index in range(first, first + own)]), own, rows


def filled_up(value: Any, own: int, rows: int) -> Any:
    """Repeat the last row of tensors with `own` rows until they have `rows`: what gathers wants them equal."""
    if isinstance(value, Tensor):
        if not value.ndim or len(value) != own:
            return value
        return torch.cat([value, value[-1:].expand(rows - own, *value.shape[1:])])
    if isinstance(value, tuple | list):
        return type(value)(filled_up(item, own, rows) for item in value)
    if isinstance(value, dict):
        return {key: filled_up(item, own, rows) for key, item in value.items()}
    return value
