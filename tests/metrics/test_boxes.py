"""Box scores by hand and against torchvision."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_convert, box_iou, generalized_box_iou

from hfvla.metrics.boxes import box_overlaps, box_scores


def test_by_hand():
    # First: 0.4 x 0.4 at x 0.3 and 0.5: overlap 0.08 of 0.24, IoU and GIoU 1/3, L1 0.2. Second: the same box.
    predicted = [[0.3, 0.5, 0.4, 0.4], [0.5, 0.5, 0.2, 0.2]]
    scores = box_scores(np.array(predicted), np.array([[0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.2, 0.2]]))
    assert scores == pytest.approx(
        {"iou": 2 / 3, "giou": 2 / 3, "l1": 0.1, "accuracy_50": 0.5, "accuracy_70": 0.5, "boxes": 2}, abs=1e-6
    )


def test_thresholds_differ():
    # Widths 0.4 and 0.24 around one centre: IoU 0.6
    scores = box_scores(np.array([[0.5, 0.5, 0.24, 0.4]]), np.array([[0.5, 0.5, 0.4, 0.4]]))
    assert (scores["accuracy_50"], scores["accuracy_70"]) == (1.0, 0.0)


def test_equals_torchvision():
    boxes = np.random.default_rng(0).uniform(0.05, 0.6, size=(2, 50, 4))
    first, second = (box_convert(torch.from_numpy(side), "cxcywh", "xyxy") for side in boxes)
    iou, giou = box_overlaps(*boxes)
    np.testing.assert_allclose(iou, box_iou(first, second).diagonal().numpy(), atol=1e-6)
    np.testing.assert_allclose(giou, generalized_box_iou(first, second).diagonal().numpy(), atol=1e-5)
    assert giou.min() < 0 < iou.max()


def test_no_box_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match="there is no box"):
        box_scores(np.zeros((0, 4)), np.zeros((0, 4)))
    with pytest.raises(ValueError, match=r"\(2, 4\) and \(3, 4\)"):
        box_scores(np.zeros((2, 4)), np.zeros((3, 4)))
