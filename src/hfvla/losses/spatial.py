"""Where one object lies from another: labels from boxes, and the loss on them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hfvla.losses.text import IGNORE_INDEX

__all__ = ["spatial_labels", "spatial_loss"]


def spatial_labels(boxes: Tensor, mask: Tensor) -> Tensor:
    """Return where B lies from A, for all ordered pairs (A, B) of an image's boxes.

    With `dx = xA - xB`: centre (1) if `|dx| < wA / 2`, else left (0) if `dx > 0`, else right (2); y in the same way.

    The classes are those of `hfvla.data.boxes`: `HORIZONTAL` in [..., 0], `VERTICAL` in [..., 1].

    Shapes: B batch, S boxes an image.

    Args:
        boxes (`Tensor`): [B, S, 4], (centre x, centre y, width, height) as a share of the image.
        mask (`Tensor`): [B, S] bool; True = there is a box.

    Returns:
        `Tensor`: [B, S, S, 2] long; [b, i, j] for A = i and B = j; `IGNORE_INDEX` where i is j or a box is missing.

    Raises:
        ValueError: shapes differ.
    """
    if boxes.ndim != 3 or boxes.shape[-1] != 4 or boxes.shape[:2] != mask.shape:
        raise ValueError(f"spatial_labels: boxes {tuple(boxes.shape)} and mask {tuple(mask.shape)} do not fit")
    centres, sizes = boxes[..., :2].float(), boxes[..., 2:].float()
    offset = centres[:, :, None] - centres[:, None, :]  # [B, S, S, 2], A minus B
    labels = torch.where(offset > 0, 0, 2)
    labels = labels.masked_fill(offset.abs() < sizes[:, :, None] / 2, 1)
    other = ~torch.eye(boxes.shape[1], dtype=torch.bool, device=boxes.device)
    pairs = mask[:, :, None] & mask[:, None, :] & other  # [B, S, S]
    return labels.masked_fill(~pairs[..., None], IGNORE_INDEX)


def spatial_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the horizontal plus that of the vertical relation, each averaged over the labelled pairs.

    Args:
        logits (`Tensor`): [..., 6], three for `HORIZONTAL` and three for `VERTICAL`.
        labels (`Tensor`): [..., 2] long, as `spatial_labels` returns them.

    Returns:
        `Tensor`: [] scalar, nats; 0 with a graph where no pair is labelled.

    Raises:
        ValueError: shapes differ.
    """
    if logits.shape[-1:] != (6,) or labels.shape != (*logits.shape[:-1], 2):
        raise ValueError(f"spatial_loss: logits {tuple(logits.shape)} and labels {tuple(labels.shape)} do not fit")
    pairs = (labels[..., 0] != IGNORE_INDEX).sum().clamp_min(1)
    flat = logits.float().flatten(0, -2)  # without picking rows: a plan follows this on tensors without values
    costs = [
        F.cross_entropy(flat[:, part], labels[..., axis].flatten(), ignore_index=IGNORE_INDEX, reduction="sum")
        for axis, part in enumerate((slice(0, 3), slice(3, 6)))
    ]
    return (costs[0] + costs[1]) / pairs
