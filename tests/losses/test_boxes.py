"""Box losses by hand, masked, and against a naive loop."""

import pytest
import torch

from hfvla.losses.boxes import box_loss


def naive_giou(first, second):
    """GIoU of two cxcywh boxes with plain numbers."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = (
        (x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in (first, second)
    )
    width, height = max(0.0, min(ax1, bx1) - max(ax0, bx0)), max(0.0, min(ay1, by1) - max(ay0, by0))
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - width * height
    hull = (max(ax1, bx1) - min(ax0, bx0)) * (max(ay1, by1) - min(ay0, by0))
    return width * height / union - (hull - union) / hull


def test_by_hand():
    # Boxes 0.4 x 0.4 around (0.3, 0.5) and (0.5, 0.5): L1 0.2. Overlap 0.2 x 0.4 = 0.08, union 0.32 - 0.08 = 0.24,
    # hull 0.6 x 0.4 = 0.24 = union. GIoU = 1/3 - 0, so the loss is 2/3.
    loss = box_loss(torch.tensor([[0.3, 0.5, 0.4, 0.4]]), torch.tensor([[0.5, 0.5, 0.4, 0.4]]), torch.tensor([True]))
    assert loss.l1.item() == pytest.approx(0.2, abs=1e-6)
    assert loss.giou.item() == pytest.approx(2 / 3, abs=1e-6)


def test_boxes_apart_cost_more_than_one():
    # Boxes 0.2 x 0.2 around (0.1, 0.1) and (0.9, 0.1): no overlap, union 0.08, hull 1.0 x 0.2 = 0.2
    # GIoU = 0 - 0.12 / 0.2 = -0.6: loss 1.6
    loss = box_loss(torch.tensor([[0.1, 0.1, 0.2, 0.2]]), torch.tensor([[0.9, 0.1, 0.2, 0.2]]), torch.tensor([True]))
    assert loss.giou.item() == pytest.approx(1.6, abs=1e-6)


def test_equals_the_loop_over_valid_boxes():
    generator = torch.Generator().manual_seed(0)
    pred, target = torch.rand(2, 4, 3, 4, generator=generator) * 0.5 + 0.1
    mask = torch.rand(4, 3, generator=generator) > 0.4
    assert 0 < mask.sum() < 12
    target[~mask] = torch.nan  # a null box
    loss = box_loss(pred, target, mask)
    pairs = [(pred[b, s].tolist(), target[b, s].tolist()) for b, s in mask.nonzero().tolist()]
    expected_l1 = sum(sum(abs(x - y) for x, y in zip(*pair, strict=True)) for pair in pairs) / len(pairs)
    assert loss.l1.item() == pytest.approx(expected_l1, abs=1e-6)
    assert loss.giou.item() == pytest.approx(sum(1 - naive_giou(*pair) for pair in pairs) / len(pairs), abs=1e-5)


def test_null_boxes_give_no_gradient():
    pred = torch.full((2, 4), 0.5, requires_grad=True)
    target = torch.tensor([[0.4, 0.4, 0.2, 0.2], [torch.nan] * 4])
    loss = box_loss(pred, target, torch.tensor([True, False]))
    (loss.l1 + loss.giou).backward()
    assert pred.grad[0].abs().sum() > 0 and pred.grad[1].abs().sum() == 0


def test_no_box_at_all_is_zero_with_a_graph():
    pred = torch.rand(2, 4, requires_grad=True)
    loss = box_loss(pred, torch.full((2, 4), torch.nan), torch.zeros(2, dtype=torch.bool))
    (loss.l1 + loss.giou).backward()
    assert loss.l1.item() == loss.giou.item() == 0.0 and pred.grad.abs().sum() == 0


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(2, 4\).*\(3,\)"):
        box_loss(torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(3, dtype=torch.bool))
