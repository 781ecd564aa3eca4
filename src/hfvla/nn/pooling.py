"""Pooling of token sequences to one vector."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["last_valid", "masked_mean"]


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over valid tokens; zeros where a row has none.

    Shapes: B batch, T tokens, D width.

    Args:
        hidden (`Tensor`): [B, T, D].
        mask (`Tensor`): [B, T] bool; True = valid.

    Returns:
        `Tensor`: [B, D].
    """
    valid = mask.unsqueeze(-1)  # [B, T, 1]
    return hidden.masked_fill(~valid, 0).sum(1) / valid.sum(1).clamp_min(1).to(hidden.dtype)


def last_valid(hidden: Tensor, mask: Tensor) -> Tensor:
    """State of each row's last valid token, with padding on either side; the last one of all where none is valid.

    Shapes: B batch, T tokens, D width.

    Args:
        hidden (`Tensor`): [B, T, D].
        mask (`Tensor`): [B, T] bool; True = valid.

    Returns:
        `Tensor`: [B, D].
    """
    from_end = mask.flip(1).long().argmax(1)
    rows = torch.arange(len(mask), device=mask.device)
    return hidden[rows, hidden.shape[1] - 1 - from_end]
