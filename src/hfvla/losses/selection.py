"""Losses on multi-label choices."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["bernoulli_consistency", "multilabel_loss"]


def multilabel_loss(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, focal_gamma: float = 0.0
) -> Tensor:
    """Binary cross-entropy over labels, smoothed and optionally focal, averaged over samples and labels.

    Shapes: B batch, R labels.

    Args:
        logits (`Tensor`): [B, R].
        targets (`Tensor`): [B, R], 0 or 1.
        label_smoothing (`float`): s; targets become `y (1 - s) + s / 2`.
        focal_gamma (`float`): each term is scaled by `|y - p| ** gamma`; 0 is plain cross-entropy.

    Returns:
        `Tensor`: [] scalar.

    Raises:
        ValueError: shapes differ.

    Source: Lin et al. 2017 (focal), Szegedy et al. 2016 (smoothing). Differs: the focal weight uses the smoothed
    target, so the loss keeps its minimum at the smoothed target instead of pulling past it.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"multilabel_loss: logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ")
    smoothed = targets.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
    loss = F.binary_cross_entropy_with_logits(logits, smoothed, reduction="none")
    if focal_gamma:
        loss = loss * (smoothed - logits.sigmoid()).abs() ** focal_gamma
    return loss.mean()


def bernoulli_consistency(first_logits: Tensor, second_logits: Tensor, mask: Tensor) -> Tensor:
    """Symmetric KL divergence between two sets of Bernoulli decisions, over the valid ones.

    With logits a, b and probabilities p, q it is `(p - q) (a - b) / 2` for each decision.

    Shapes: B batch, R labels.

    Args:
        first_logits (`Tensor`): [B, R], log-odds of one decision maker.
        second_logits (`Tensor`): [B, R], log-odds of the other.
        mask (`Tensor`): [B, R] bool; True = valid. Each sample with a valid label counts the same.

    Returns:
        `Tensor`: [] scalar, nats.

    Raises:
        ValueError: shapes differ, or nothing is valid.
    """
    if not (first_logits.shape == second_logits.shape == mask.shape):
        raise ValueError(
            f"bernoulli_consistency: shapes differ: {tuple(first_logits.shape)}, {tuple(second_logits.shape)}, "
            f"{tuple(mask.shape)}"
        )
    if not mask.any():
        raise ValueError("bernoulli_consistency: no decision is valid")
    divergence = (first_logits.sigmoid() - second_logits.sigmoid()) * (first_logits - second_logits) / 2
    per_sample = (divergence * mask).sum(1) / mask.sum(1).clamp_min(1)  # [B]
    return per_sample[mask.any(1)].mean()
