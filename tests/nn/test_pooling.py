"""Pooling of token sequences."""

import torch

from hfvla.nn.pooling import last_valid, masked_mean

HIDDEN = torch.tensor([[[1.0, 10.0], [3.0, 30.0], [500.0, 500.0]], [[7.0, 7.0], [7.0, 7.0], [7.0, 7.0]]])
MASK = torch.tensor([[True, True, False], [False, False, False]])


def test_mean_over_valid_tokens_only():
    # row 0: (1 + 3) / 2 = 2 and (10 + 30) / 2 = 20; row 1 has no valid token
    assert torch.equal(masked_mean(HIDDEN, MASK), torch.tensor([[2.0, 20.0], [0.0, 0.0]]))


def test_keeps_the_precision_of_the_hidden_states():
    assert masked_mean(HIDDEN.bfloat16(), MASK).dtype == torch.bfloat16


def test_gradients_reach_valid_tokens_only():
    hidden = HIDDEN.clone().requires_grad_()
    masked_mean(hidden, MASK).sum().backward()
    assert torch.equal(hidden.grad, MASK[..., None].expand(-1, -1, 2) * 0.5)


def test_nothing_in_the_padding_reaches_the_mean():
    hidden = torch.tensor([[[1.0], [3.0], [float("nan")]]])
    assert masked_mean(hidden, torch.tensor([[True, True, False]])).tolist() == [[2.0]]


def test_last_valid_with_padding_on_either_side():
    hidden = torch.arange(12.0).reshape(4, 3, 1)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 1], [0, 1, 0]], dtype=torch.bool)
    assert last_valid(hidden, mask).flatten().tolist() == [2.0, 4.0, 8.0, 10.0]
