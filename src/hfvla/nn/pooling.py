"""Pooling of token sequences to one vector."""

from __future__ import annotations

from torch import Tensor

__all__ = ["masked_mean"]


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over valid tokens; zeros where a row has none.

    Shapes: B batch, T tokens, D width.

    Args:
        hidden (`Tensor`): [B, T, D].
        mask (`Tensor`): [B, T] bool; True = valid.

    Returns:
        `Tensor`: [B, D].
    """
    weights = mask.to(hidden.dtype).unsqueeze(-1)  # [B, T, 1]
    return (hidden * weights).sum(1) / weights.sum(1).clamp_min(1.0)
