"""Losses on generated text."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["IGNORE_INDEX", "sequence_cross_entropy", "sums_by_row", "text_by_row", "text_count"]

IGNORE_INDEX = -100
"""Label of a token that is not predicted (prompt, padding), as everywhere in transformers."""


def text_count(labels: Tensor, rows: Tensor, reduction: str = "sample") -> Tensor:
    """Return what `sequence_cross_entropy` is a mean over.

    Args:
        labels (`Tensor`): [B, T] long, `IGNORE_INDEX` where nothing is predicted; position 0 never is.
        rows (`Tensor`): [B] bool; True = the sample counts.
        reduction (`str`): one of `TEXT_REDUCTIONS`.

    Returns:
        `Tensor`: [] samples that have a token to predict, or their tokens.
    """
    tokens = (labels[:, 1:] != IGNORE_INDEX).sum(1) * rows
    return tokens.sum() if reduction == "token" else (tokens > 0).sum()


def sequence_cross_entropy(
    token_logits: Tensor, token_labels: Tensor, sample_index: Tensor, num_samples: int, reduction: str = "sample"
) -> Tensor:
    """Cross-entropy averaged within each sample, then over samples; or over all tokens.

    Shapes: N predicted tokens of the whole batch, V vocabulary.

    Args:
        token_logits (`Tensor`): [N, V].
        token_labels (`Tensor`): [N] long.
        sample_index (`Tensor`): [N] long, the sample each token belongs to.
        num_samples (`int`): S; samples without a token do not count.
        reduction (`str`): one of `TEXT_REDUCTIONS`.

    Returns:
        `Tensor`: [] scalar, nats a token.

    Raises:
        ValueError: no token is predicted.
    """
    if token_labels.numel() == 0:
        raise ValueError("sequence_cross_entropy: no token is predicted in this batch")
    losses = F.cross_entropy(token_logits.float(), token_labels, reduction="none")  # [N]
    if reduction == "token":
        return losses.mean()
    sums = torch.zeros(num_samples, dtype=losses.dtype, device=losses.device).index_add_(0, sample_index, losses)
    counts = torch.bincount(sample_index, minlength=num_samples)  # [S]
    present = counts > 0
    return (sums[present] / counts[present]).mean()


def sums_by_row(losses: Tensor, row_index: Tensor, rows: int) -> Tensor:
    """Return what a term sums up to in each row, for losses by source; without a graph.

    Args:
        losses (`Tensor`): [N], of each predicted token (or box, or letter).
        row_index (`Tensor`): [N] long, the row (in a packed batch: the sample) that each belongs to.
        rows (`int`): S.

    Returns:
        `Tensor`: [2, S] float32; sums, and over how many.
    """
    found = torch.zeros(2, rows, dtype=torch.float32, device=losses.device)
    found[0].index_add_(0, row_index, losses.detach().float())
    found[1].index_add_(0, row_index, torch.ones_like(losses, dtype=torch.float32).detach())
    return found


def text_by_row(
    token_logits: Tensor, token_labels: Tensor, sample_index: Tensor, num_samples: int, reduction: str = "sample"
) -> Tensor:
    """Return what `sequence_cross_entropy` is a mean over, by sample; without a graph.

    Args:
        token_logits (`Tensor`): [N, V].
        token_labels (`Tensor`): [N] long.
        sample_index (`Tensor`): [N] long, the sample each token belongs to.
        num_samples (`int`): S.
        reduction (`str`): one of `TEXT_REDUCTIONS`.

    Returns:
        `Tensor`: [2, S] float32; a mean and 1 for each sample with a token, or sum and number of its tokens.
    """
    losses = F.cross_entropy(token_logits.detach().float(), token_labels, reduction="none")
    found = sums_by_row(losses, sample_index, num_samples)
    if reduction == "token":
        return found
    present = (found[1] > 0).float()
    return torch.stack([found[0] / found[1].clamp_min(1), present])
