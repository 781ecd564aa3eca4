"""Weighting rules and gradient projection by hand."""

import math

import pytest
import torch

from hfvla.losses.balancing import (
    cosine_matrix,
    gradnorm_targets,
    gradnorm_update,
    pcgrad_coefficients,
    pcgrad_orders,
    uncertainty_gradient,
    uncertainty_loss,
)


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# ---- uncertainty ---------------------------------------------------------------------------------------------------


def test_uncertainty_loss_by_hand():
    # 1 * (e^0 * 2 + 0) + 0.5 * (e^-ln4 * 8 + ln 4) = 2 + 0.5 * (2 + 1.386294) = 3.693147
    found = uncertainty_loss(vector(2, 8), vector(0, math.log(4)), vector(1, 0.5))
    assert found.item() == pytest.approx(3.693147, abs=1e-6)


def test_uncertainty_gradient_by_hand_and_by_autograd():
    # 1 * (1 - 2) = -1; 0.5 * (1 - 8 / 4) = -0.5
    losses, weights = vector(2, 8), vector(1, 0.5)
    variances = vector(0, math.log(4)).requires_grad_()
    uncertainty_loss(losses, variances, weights).backward()
    torch.testing.assert_close(variances.grad, vector(-1, -0.5))
    torch.testing.assert_close(uncertainty_gradient(losses, variances.detach(), weights), vector(-1, -0.5))


def test_uncertainty_rests_where_the_log_variance_is_the_log_loss():
    losses = vector(0.01, 300.0)
    torch.testing.assert_close(uncertainty_gradient(losses, losses.log(), vector(1, 3)), vector(0, 0))


def test_uncertainty_wants_vectors_of_one_length():
    with pytest.raises(ValueError, match=r"\(2,\), \(3,\)"):
        uncertainty_loss(torch.ones(2), torch.zeros(3), torch.ones(2))


# ---- GradNorm ------------------------------------------------------------------------------------------------------


def test_targets_by_hand():
    # mean norm 2; rates 0.5 and 1.5 over their mean 1; squared: 0.25 and 2.25
    torch.testing.assert_close(gradnorm_targets(vector(1, 3), vector(0.5, 1.5), 2.0), vector(0.5, 4.5))
    torch.testing.assert_close(gradnorm_targets(vector(1, 3), vector(0.5, 1.5), 0.0), vector(2, 2))


def test_one_update_by_hand():
    # both learn alike, so both norms should be 2: log w moves by +0.1 * 1 / 2 and -0.1 * 3 / 2
    # e^0.05 = 1.051271, e^-0.15 = 0.860708; sum 1.911979, so times 1.046037
    found = gradnorm_update(vector(1, 1), vector(1, 3), vector(1, 1), alpha=1.5, rate=0.1)
    torch.testing.assert_close(found, vector(1.099668, 0.900332), atol=2e-6, rtol=0)


def test_weights_move_to_the_term_that_lags_behind():
    found = gradnorm_update(vector(1, 1, 1), vector(2, 2, 2), vector(0.2, 1.0, 0.6), alpha=1.5)
    assert found[0] < found[2] < found[1]
    assert found.sum().item() == pytest.approx(3)


def test_repeated_updates_make_the_norms_equal():
    weights, norms = vector(1, 1, 1), vector(0.01, 1, 100)
    for _ in range(3000):
        weights = gradnorm_update(weights, norms, vector(1, 1, 1), rate=0.01)
        assert weights.sum().item() == pytest.approx(3) and bool((weights > 0).all())
    reached = weights * norms
    assert (reached.max() / reached.min()).item() < 1.05


def test_the_scale_of_the_losses_does_not_matter():
    arguments = {"ratios": vector(1, 0.5), "alpha": 1.0, "rate": 0.1}
    small = gradnorm_update(vector(1.5, 0.5), vector(1, 2), **arguments)
    torch.testing.assert_close(gradnorm_update(vector(1.5, 0.5), vector(1e4, 2e4), **arguments), small)


def test_no_gradient_moves_no_weight():
    torch.testing.assert_close(gradnorm_update(vector(1.5, 0.5), vector(0, 0), vector(1, 1)), vector(1.5, 0.5))


def test_weights_must_be_positive():
    with pytest.raises(ValueError, match=r"above 0; got \[0.0, 2.0\]"):
        gradnorm_update(vector(0, 2), vector(1, 1), vector(1, 1))


# ---- PCGrad --------------------------------------------------------------------------------------------------------


def combined(gradients: torch.Tensor, orders) -> torch.Tensor:
    return pcgrad_coefficients(gradients @ gradients.T, orders) @ gradients


def test_two_conflicting_gradients_by_hand():
    # a = (1, 0), b = (-1, 1): a.b = -1, |a|^2 = 1, |b|^2 = 2
    # a' = a + b / 2 = (0.5, 0.5); b' = b + a = (0, 1); together (0.5, 1.5) = 2 a + 1.5 b
    gradients = torch.stack([vector(1, 0), vector(-1, 1)])
    torch.testing.assert_close(pcgrad_coefficients(gradients @ gradients.T, [[1], [0]]), vector(2, 1.5))
    torch.testing.assert_close(combined(gradients, [[1], [0]]), vector(0.5, 1.5))


def test_gradients_that_agree_are_added():
    gradients = torch.stack([vector(1, 0), vector(1, 1), vector(0, 2)])
    torch.testing.assert_close(combined(gradients, pcgrad_orders(3, 0, 0)), vector(2, 3))


def test_the_order_decides_with_three_terms():
    # c = (-1, -1) meets a = (1, 0) then b = (0, 1), and ends at 0 either way. With b = (1, 2), |b|^2 = 5:
    # c -> off a: (0, -1) -> off b: (0, -1) + 2/5 (1, 2) = (0.4, -0.2)
    # c -> off b: (-1, -1) + 3/5 (1, 2) = (-0.4, 0.2) -> off a: (0, 0.2)
    # a off c (a.c = -1, |c|^2 = 2): (0.5, -0.5), then off b (product -0.5): + 0.1 (1, 2) = (0.6, -0.3)
    # a meets b first: no conflict; then c: (0.5, -0.5)
    # b off c (product -3): (1, 2) + 1.5 (-1, -1) = (-0.5, 0.5), then off a (product -0.5): (0, 0.5)
    gradients = torch.stack([vector(1, 0), vector(1, 2), vector(-1, -1)])
    first = combined(gradients, [[2, 1], [2, 0], [0, 1]])
    torch.testing.assert_close(first, vector(0.6 + 0 + 0.4, -0.3 + 0.5 - 0.2))
    second = combined(gradients, [[1, 2], [2, 0], [1, 0]])
    torch.testing.assert_close(second, vector(0.5 + 0 + 0, -0.5 + 0.5 + 0.2))


def test_a_term_without_gradient_changes_nothing():
    gradients = torch.stack([vector(1, 0), vector(0, 0), vector(-1, 1)])
    torch.testing.assert_close(combined(gradients, pcgrad_orders(3, 0, 0)), vector(0.5, 1.5))


def test_the_order_is_drawn_by_seed_and_step():
    assert pcgrad_orders(5, 1, 7) == pcgrad_orders(5, 1, 7)
    assert len({str(pcgrad_orders(5, seed, step)) for seed in range(3) for step in range(3)}) == 9
    for term, others in enumerate(pcgrad_orders(5, 1, 7)):
        assert sorted([*others, term]) == [0, 1, 2, 3, 4]


def test_drawing_the_order_leaves_the_random_streams_alone():
    import random

    random.seed(3)
    expected = random.random()
    random.seed(3)
    pcgrad_orders(4, 0, 0)
    assert random.random() == expected


def test_matrix_and_orders_must_fit():
    with pytest.raises(ValueError, match=r"\(2, 2\) matrix and 3 orders"):
        pcgrad_coefficients(torch.eye(2), [[1], [0], []])


def test_cosines_by_hand():
    # (3, 4) and (4, 3): 24 / 25; with nothing: no angle
    gradients = torch.stack([vector(3, 4), vector(4, 3), vector(0, 0)])
    found = cosine_matrix(gradients @ gradients.T)
    assert found[0, 1].item() == pytest.approx(0.96) and found[1, 1].item() == pytest.approx(1.0)
    assert torch.isnan(found[2]).all()
