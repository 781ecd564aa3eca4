"""The order of rows by length, where the lengths are known and not a column of token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["LENGTHS", "length_sampler"]

LENGTHS = "lengths"
"""Attribute of a training data set: tokens of each row, for `train_sampling_strategy: group_by_length`."""


def length_sampler(trainer: Trainer) -> Any:
    """Return transformers' sampler of rows of about one length, or None where it is not asked for or not needed.

    Trainer itself reads lengths from token ids or from a column; rows of conversations have neither before the
    collator.

    Args:
        trainer: with `args` and `train_dataset`.
    """
    from transformers.trainer_pt_utils import LengthGroupedSampler

    lengths = getattr(trainer.train_dataset, LENGTHS, None)
    if trainer.args.train_sampling_strategy != "group_by_length" or lengths is None:
        return None
    return LengthGroupedSampler(
        trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps, lengths=lengths
    )
