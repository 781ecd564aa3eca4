"""Scores of predicted boxes: IoU, GIoU, L1 and the share of boxes that overlap enough.

Boxes are (centre x, centre y, width, height) as shares of the image; N boxes.
"""

from __future__ import annotations

import numpy as np
import torch
from torchvision.ops import box_convert, generalized_box_iou_loss

__all__ = ["box_overlaps", "box_scores"]


def box_overlaps(predicted: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return IoU and GIoU of each pair.

    Args:
        predicted: [N, 4] cxcywh.
        wanted: [N, 4] cxcywh.

    Returns:
        `tuple`: [N] IoU in 0..1, [N] GIoU in -1..1.

    Raises:
        ValueError: shapes differ.
    """
    predicted, wanted = np.asarray(predicted, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    if predicted.shape != wanted.shape or predicted.shape[1:] != (4,):
        raise ValueError(f"need two [N, 4] arrays; got {predicted.shape} and {wanted.shape}")
    first, second = (box_convert(torch.from_numpy(boxes), "cxcywh", "xyxy") for boxes in (predicted, wanted))
    sides = (torch.minimum(first, second)[:, 2:] - torch.maximum(first, second)[:, :2]).clamp_min(0)
    shared = sides.prod(1)
    union = torch.from_numpy(predicted[:, 2:].prod(1) + wanted[:, 2:].prod(1)) - shared
    giou = 1 - generalized_box_iou_loss(first, second, reduction="none", eps=1e-12)
    return (shared / union.clamp_min(1e-12)).numpy(), giou.numpy()


def box_scores(predicted: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Score predicted boxes.

    Args:
        predicted: [N, 4] cxcywh.
        wanted: [N, 4] cxcywh; only boxes that exist.

    Returns:
        `dict`: iou, giou and l1 (sum of the four absolute differences), each averaged over boxes; accuracy_50 and
        accuracy_70, the share with an IoU of at least 0.5 and 0.7; boxes, how many there are.

    Raises:
        ValueError: shapes differ, or there is no box.
    """
    if not len(predicted):
        raise ValueError("box_scores: there is no box")
    iou, giou = box_overlaps(predicted, wanted)
    return {
        "iou": float(iou.mean()),
        "giou": float(giou.mean()),
        "l1": float(np.abs(np.asarray(predicted, float) - np.asarray(wanted, float)).sum(1).mean()),
        "accuracy_50": float((iou >= 0.5).mean()),
        "accuracy_70": float((iou >= 0.7).mean()),
        "boxes": float(len(iou)),
    }
