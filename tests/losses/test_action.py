"""Action losses by hand, weighted and masked."""

import pytest
import torch

from hfvla.losses.action import action_weights, masked_squared_error, weighted_mean

NAN = torch.nan
PREDICTED = torch.tensor([[[1.0, 2.0], [3.0, 5.0]], [[0.0, 1.0], [9.0, 9.0]]])
TARGET = torch.tensor([[[0.0, 2.0], [1.0, 2.0]], [[2.0, 1.0], [NAN, NAN]]])
MASK = torch.tensor([[True, True], [True, False]])


def test_by_hand():
    # Sample 0: (1 + 0 + 4 + 9) / 4 = 3.5. Sample 1: (4 + 0) / 2 = 2, its second step is masked.
    assert masked_squared_error(PREDICTED, TARGET, MASK).tolist() == [3.5, 2.0]


def test_weights_by_hand():
    # Confidence 0.5 and 1, a sensor in sample 1 counts twice: 0.5 and 2. (0.5 * 3.5 + 2 * 2) / 2.5 = 2.3
    weights = action_weights(MASK, torch.tensor([0.5, 1.0]), torch.tensor([False, True]), sensor_weight=2.0)
    assert weights.tolist() == [0.5, 2.0]
    assert weighted_mean(torch.tensor([3.5, 2.0]), weights).item() == pytest.approx(2.3)
    assert action_weights(MASK).tolist() == [1.0, 1.0]
    assert action_weights(MASK, has_sensor=torch.tensor([True, False])).tolist() == [2.0, 1.0]


def test_the_scale_of_the_weights_does_not_matter():
    losses, weights = torch.tensor([3.5, 2.0]), torch.tensor([0.5, 2.0])
    torch.testing.assert_close(weighted_mean(losses, weights), weighted_mean(losses, 7 * weights))


def test_a_sample_without_steps_does_not_dilute():
    mask = torch.tensor([[True, True], [False, False]])
    losses = masked_squared_error(PREDICTED, TARGET, mask)
    weights = action_weights(mask, torch.tensor([0.5, 1.0]))
    assert losses.tolist() == [3.5, 0.0] and weights.tolist() == [0.5, 0.0]
    assert weighted_mean(losses, weights).item() == 3.5


def test_gradients_are_finite_and_of_valid_steps_only():
    predicted = PREDICTED.clone().requires_grad_()
    weighted_mean(masked_squared_error(predicted, TARGET, MASK), action_weights(MASK)).backward()
    assert predicted.grad.isfinite().all() and predicted.grad[1, 1].abs().sum() == 0
    # d/dp of (p - t)^2 / 4 / 2 samples: 2 * (3 - 1) / 8 = 0.5 at sample 0, step 1, channel 0
    assert predicted.grad[0, 1, 0].item() == 0.5


def test_nothing_valid_is_zero_with_a_graph():
    predicted, mask = PREDICTED.clone().requires_grad_(), torch.zeros(2, 2, dtype=torch.bool)
    loss = weighted_mean(masked_squared_error(predicted, TARGET, mask), action_weights(mask))
    loss.backward()
    assert loss.item() == 0.0 and predicted.grad.abs().sum() == 0


def test_half_precision_is_summed_in_float32():
    predicted = torch.full((1, 1, 1), 1.0, dtype=torch.bfloat16)
    loss = masked_squared_error(predicted, torch.full((1, 1, 1), 1.001), torch.ones(1, 1, dtype=torch.bool))
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(1e-6, rel=1e-2)


def test_refusals():
    with pytest.raises(ValueError, match=r"mask \(2, 3\)"):
        masked_squared_error(PREDICTED, TARGET, torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\(2, 2, 2\), \(2, 2, 1\)"):
        masked_squared_error(PREDICTED, TARGET[..., :1], MASK)
    with pytest.raises(ValueError, match=r"confidence has shape \(3,\); expected \(2,\)"):
        action_weights(MASK, torch.ones(3))
    with pytest.raises(ValueError, match="sensor_weight -1"):
        action_weights(MASK, sensor_weight=-1)
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        weighted_mean(torch.ones(2), torch.ones(3))
