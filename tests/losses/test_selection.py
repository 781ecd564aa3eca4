"""Losses on multi-label choices, against numbers worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from hfvla.losses.selection import bernoulli_consistency, multilabel_loss

# Probabilities 0.5 and 0.75; the first label is on, the second is off.
LOGITS = torch.tensor([[0.0, math.log(3.0)]])
TARGETS = torch.tensor([[1.0, 0.0]])


def test_plain_cross_entropy():
    # -ln 0.5 = 0.693147; -ln(1 - 0.75) = 1.386294; mean 1.039721
    assert multilabel_loss(LOGITS, TARGETS).item() == pytest.approx(1.039721, abs=1e-6)


def test_smoothing_moves_the_targets():
    # targets 0.95 and 0.05. First: ln 2 whatever the target, since p = 0.5: 0.693147.
    # Second: -(0.05 ln 0.75 + 0.95 ln 0.25) = 0.014384 + 1.316979 = 1.331363; mean 1.012255
    assert multilabel_loss(LOGITS, TARGETS, label_smoothing=0.1).item() == pytest.approx(1.012255, abs=1e-6)


def test_focal_weight_uses_the_smoothed_target():
    # |0.95 - 0.5|^2 = 0.2025 and |0.05 - 0.75|^2 = 0.49
    # 0.2025 * 0.693147 = 0.140362; 0.49 * 1.331363 = 0.652368; mean 0.396365
    loss = multilabel_loss(LOGITS, TARGETS, label_smoothing=0.1, focal_gamma=2.0)
    assert loss.item() == pytest.approx(0.396365, abs=1e-6)


def test_the_exponent_is_gamma():
    # gamma 1, no smoothing: weights 0.5 and 0.75: 0.5 * 0.693147 = 0.346574; 0.75 * 1.386294 = 1.039721; mean 0.693147
    assert multilabel_loss(LOGITS, TARGETS, focal_gamma=1.0).item() == pytest.approx(0.693147, abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gamma_zero_is_torch_cross_entropy(smoothing):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=generator) * 4
    targets = torch.randint(0, 2, (6, 5), generator=generator)
    expected = F.binary_cross_entropy_with_logits(logits, targets * (1 - smoothing) + smoothing / 2)
    assert torch.equal(multilabel_loss(logits, targets, label_smoothing=smoothing), expected)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_the_minimum_is_at_the_smoothed_target(gamma):
    grid = torch.linspace(-6, 6, 2401, dtype=torch.float64)  # step 0.005
    losses = [multilabel_loss(x.view(1, 1), torch.ones(1, 1), label_smoothing=0.1, focal_gamma=gamma) for x in grid]
    # logit(0.95) = ln 19 = 2.944439
    assert grid[int(torch.stack(losses).argmin())].item() == pytest.approx(math.log(19.0), abs=0.006)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"logits \(2, 5\) and targets \(2, 4\)"):
        multilabel_loss(torch.zeros(2, 5), torch.zeros(2, 4))


def test_consistency_by_hand():
    # p = 0.75, q = 0.5: (0.75 - 0.5)(ln 3 - 0) / 2 = 0.25 * 1.098612 / 2 = 0.137327
    # from the definition: KL(p|q) = 0.75 ln 1.5 + 0.25 ln 0.5 = 0.130812; KL(q|p) = 0.143841; half the sum 0.137327
    first, second = torch.tensor([[math.log(3.0)]]), torch.tensor([[0.0]])
    loss = bernoulli_consistency(first, second, torch.tensor([[True]]))
    assert loss.item() == pytest.approx(0.137327, abs=1e-6)
    assert bernoulli_consistency(second, first, torch.tensor([[True]])) == loss


def test_consistency_is_zero_when_equal_and_pulls_both_ways():
    logits = torch.tensor([[0.3, -2.0], [1.0, 4.0]])
    mask = torch.ones(2, 2, dtype=torch.bool)
    assert bernoulli_consistency(logits, logits.clone(), mask).item() == 0.0
    first, second = torch.tensor([[1.0]], requires_grad=True), torch.tensor([[-1.0]], requires_grad=True)
    bernoulli_consistency(first, second, mask[:1, :1]).backward()
    assert first.grad.item() > 0 > second.grad.item()


def test_consistency_counts_valid_samples_alike():
    a = math.log(3.0)
    first = torch.tensor([[a, a, a], [a, 99.0, 99.0], [99.0, 99.0, 99.0]])
    second = torch.tensor([[0.0, 0.0, a], [0.0, -99.0, -99.0], [-99.0, -99.0, -99.0]])
    mask = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    # sample 0: (0.137327 * 2 + 0) / 3 = 0.091551; sample 1: 0.137327; sample 2 has nothing valid; mean 0.114439
    assert bernoulli_consistency(first, second, mask).item() == pytest.approx(0.114439, abs=1e-6)


def test_consistency_errors():
    zeros = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"\(2, 3\), \(2, 4\)"):
        bernoulli_consistency(zeros, torch.zeros(2, 4), zeros.bool())
    with pytest.raises(ValueError, match=r"\(3, 3\)"):
        bernoulli_consistency(zeros, zeros, torch.ones(3, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="no decision is valid"):
        bernoulli_consistency(zeros, zeros, zeros.bool())
