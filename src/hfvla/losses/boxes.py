"""Losses on boxes."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou_loss

__all__ = ["BoxLoss", "box_loss"]


class BoxLoss(NamedTuple):
    """The two parts of the loss on boxes.

    Attributes:
        l1 (`Tensor`): [] scalar, sum of the four absolute differences, averaged over boxes.
        giou (`Tensor`): [] scalar, `1 - GIoU`, averaged over boxes.
    """

    l1: Tensor
    giou: Tensor


def box_loss(pred: Tensor, target: Tensor, mask: Tensor) -> BoxLoss:
    """L1 and generalised IoU of predicted boxes, over the valid ones.

    Shapes: boxes are (centre x, centre y, width, height) as a share of the image.

    Args:
        pred (`Tensor`): [..., 4] in 0..1, e.g. after a sigmoid.
        target (`Tensor`): [..., 4] in 0..1; where the mask is False, anything (NaN too).
        mask (`Tensor`): [...] bool; True = there is a box.

    Returns:
        `BoxLoss`: both 0, with a graph, where there is no box at all.

    Raises:
        ValueError: shapes differ.

    Source: Carion et al. 2020 (DETR), section 3.1, without its weights; Rezatofighi et al. 2019 (GIoU).
    """
    if pred.shape != target.shape or pred.shape[:-1] != mask.shape or pred.shape[-1] != 4:
        raise ValueError(
            f"box_loss: shapes {tuple(pred.shape)}, {tuple(target.shape)} and mask {tuple(mask.shape)} do not fit"
        )
    predicted, wanted = pred[mask].float(), target[mask].float()  # [N, 4]
    if not len(predicted):
        zero = pred.float().sum() * 0
        return BoxLoss(zero, zero)
    l1 = F.l1_loss(predicted, wanted, reduction="none").sum(-1)
    corners = (box_convert(boxes, "cxcywh", "xyxy") for boxes in (predicted, wanted))
    return BoxLoss(l1.mean(), generalized_box_iou_loss(*corners, reduction="mean"))
