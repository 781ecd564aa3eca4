"""Losses on action chunks: masked error a sample, weighted by confidence and by the presence of a sensor."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["action_weights", "masked_squared_error", "weighted_mean"]


def masked_squared_error(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of each sample over its valid steps and all channels.

    Shapes: B batch, H horizon steps, A action channels.

    Args:
        predicted (`Tensor`): [B, H, A].
        target (`Tensor`): [B, H, A]; where the mask is False, anything (NaN too).
        mask (`Tensor`): [B, H] bool; True = valid.

    Returns:
        `Tensor`: [B] float32; 0, with a graph, for a sample without any valid step.

    Raises:
        ValueError: shapes differ.
    """
    if predicted.shape != target.shape or predicted.ndim != 3 or predicted.shape[:2] != mask.shape:
        raise ValueError(
            f"masked_squared_error: shapes {tuple(predicted.shape)}, {tuple(target.shape)} and mask "
            f"{tuple(mask.shape)} do not fit; expected [B, H, A] twice and [B, H]"
        )
    # Filled, not multiplied by 0: 0 * NaN is NaN.
    difference = (predicted.float() - target.float()).masked_fill(~mask[..., None], 0.0)
    entries = mask.sum(1).clamp(min=1) * predicted.shape[2]
    return difference.square().sum((1, 2)) / entries


def action_weights(
    mask: Tensor, confidence: Tensor | None = None, has_sensor: Tensor | None = None, sensor_weight: float = 2.0
) -> Tensor:
    """Weight of each sample: its confidence, times `sensor_weight` where a sensor is present.

    Args:
        mask (`Tensor`): [B, H] bool; True = valid. A sample without any valid step weighs 0.
        confidence (`Tensor`, *optional*): [B], 0 or more; 1 when not given.
        has_sensor (`Tensor`, *optional*): [B] bool; no sample has one when not given.
        sensor_weight (`float`): factor of samples with a sensor.

    Returns:
        `Tensor`: [B] float32.

    Raises:
        ValueError: a shape is not [B], or `sensor_weight` is negative.
    """
    if sensor_weight < 0:
        raise ValueError(f"action_weights: sensor_weight {sensor_weight}; expected 0 or more")
    for name, given in (("confidence", confidence), ("has_sensor", has_sensor)):
        if given is not None and given.shape != mask.shape[:1]:
            raise ValueError(f"action_weights: {name} has shape {tuple(given.shape)}; expected ({len(mask)},)")
    weights = mask.any(1).float()
    if confidence is not None:
        weights = weights * confidence.float()
    if has_sensor is not None:
        weights = torch.where(has_sensor.bool(), weights * sensor_weight, weights)
    return weights


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Sum of `weights * losses` over the sum of the weights.

    Args:
        losses (`Tensor`): [B], one a sample.
        weights (`Tensor`): [B], 0 or more, from `action_weights`.

    Returns:
        `Tensor`: [] scalar; 0, with a graph, where all weights are 0.

    Raises:
        ValueError: shapes differ.
    """
    if losses.shape != weights.shape or losses.ndim != 1:
        raise ValueError(f"weighted_mean: shapes {tuple(losses.shape)} and {tuple(weights.shape)}; expected [B] twice")
    total = weights.sum()
    return (weights * losses).sum() / torch.where(total > 0, total, torch.ones_like(total))
