"""Spatial relations: labels by hand and against a naive loop, the loss by hand."""

import pytest
import torch

from hfvla.data.boxes import HORIZONTAL, VERTICAL
from hfvla.losses.spatial import spatial_labels, spatial_loss

NONE = -100


def naive(boxes, mask):
    """Follow the rule word by word, a pair at a time."""
    count = boxes.shape[1]
    labels = torch.full((len(boxes), count, count, 2), NONE)
    for b, image in enumerate(boxes.tolist()):
        for i, (xa, ya, wa, ha) in enumerate(image):
            for j, (xb, yb, _, _) in enumerate(image):
                if i != j and mask[b, i] and mask[b, j]:
                    for axis, (offset, size) in enumerate((((xa - xb), wa), ((ya - yb), ha))):
                        labels[b, i, j, axis] = 1 if abs(offset) < 0.5 * size else 0 if offset > 0 else 2
    return labels


def test_by_hand():
    # A at (0.5, 0.5), 0.4 wide, 0.2 high. B at (0.2, 0.5625): 0.3 to the left (limit 0.2), 0.0625 below (limit 0.1).
    # From B, 0.1 x 0.1 (limits 0.05): A is 0.3 to the right and 0.0625 above: right, upper.
    boxes = torch.tensor([[[0.5, 0.5, 0.4, 0.2], [0.2, 0.5625, 0.1, 0.1]]])
    labels = spatial_labels(boxes, torch.ones(1, 2, dtype=torch.bool))
    assert [HORIZONTAL[labels[0, 0, 1, 0]], VERTICAL[labels[0, 0, 1, 1]]] == ["left", "middle"]
    assert [HORIZONTAL[labels[0, 1, 0, 0]], VERTICAL[labels[0, 1, 0, 1]]] == ["right", "upper"]
    assert labels[0, 0, 0].tolist() == [NONE, NONE]


def test_the_limit_itself_is_not_the_centre():
    boxes = torch.tensor([[[0.5, 0.5, 0.5, 0.5], [0.25, 0.75, 0.1, 0.1]]])  # a quarter is half of a half
    labels = spatial_labels(boxes, torch.ones(1, 2, dtype=torch.bool))
    assert labels[0, 0, 1].tolist() == [0, 2]


def test_equals_the_loop():
    generator = torch.Generator().manual_seed(1)
    boxes, mask = torch.rand(20, 4, 4, generator=generator), torch.rand(20, 4, generator=generator) > 0.3
    labels = spatial_labels(boxes, mask)
    assert torch.equal(labels, naive(boxes, mask))
    for axis in range(2):
        assert set(labels[..., axis].unique().tolist()) == {NONE, 0, 1, 2}


def test_loss_by_hand():
    # Horizontal logits (1, 0, 0), label 0: ln(e + 2) - 1 = 0.551445. Vertical logits 0, any label: ln 3 = 1.098612.
    logits = torch.tensor([[[1.0, 0.0, 0.0, 0.0, 0.0, 0.0], [9.0] * 6]])
    labels = torch.tensor([[[0, 2], [NONE, NONE]]])
    assert spatial_loss(logits, labels).item() == pytest.approx(1.650057, abs=1e-6)


def test_equals_the_loop_over_pairs():
    generator = torch.Generator().manual_seed(2)
    boxes, mask = torch.rand(5, 3, 4, generator=generator), torch.rand(5, 3, generator=generator) > 0.2
    logits, labels = torch.randn(5, 3, 3, 6, generator=generator), spatial_labels(boxes, mask)
    costs = [
        -logits[b, i, j, :3].log_softmax(0)[labels[b, i, j, 0]]
        - logits[b, i, j, 3:].log_softmax(0)[labels[b, i, j, 1]]
        for b in range(5)
        for i in range(3)
        for j in range(3)
        if labels[b, i, j, 0] != NONE
    ]
    torch.testing.assert_close(spatial_loss(logits, labels), torch.stack(costs).mean())


def test_no_pair_is_zero_with_a_graph():
    logits = torch.randn(1, 2, 2, 6, requires_grad=True)
    loss = spatial_loss(logits, torch.full((1, 2, 2, 2), NONE))
    loss.backward()
    assert loss.item() == 0.0 and logits.grad.abs().sum() == 0


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\)"):
        spatial_labels(torch.zeros(2, 3, 4), torch.zeros(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\(2, 5\)"):
        spatial_loss(torch.zeros(2, 5), torch.zeros(2, 2, dtype=torch.long))
