"""Cross-entropy of generated text, against numbers worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from hfvla.losses.text import IGNORE_INDEX, sequence_cross_entropy

ROW = [0.0, math.log(3.0)]  # probabilities 0.25 and 0.75


def test_mean_of_means():
    # label 0 costs ln 4 = 1.386294, label 1 costs ln(4/3) = 0.287682
    # sample 0: 1.386294; sample 2: (2 * 0.287682 + 1.386294) / 3 = 0.653886; sample 1 has no token
    # mean of means: 1.020090 (over all tokens it would be 0.836988)
    logits, labels = torch.tensor([ROW] * 4), torch.tensor([0, 1, 1, 0])
    loss = sequence_cross_entropy(logits, labels, torch.tensor([0, 2, 2, 2]), num_samples=3)
    assert loss.item() == pytest.approx(1.020090, abs=1e-6)


def test_half_precision_is_summed_in_single():
    logits, labels = torch.tensor([ROW] * 4, dtype=torch.bfloat16), torch.tensor([0, 1, 1, 0])
    loss = sequence_cross_entropy(logits, labels, torch.tensor([0, 1, 1, 1]), num_samples=2)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1.020090, abs=5e-3)  # ln 3 itself is rounded to 8 bits


def test_eight_batches_of_one_are_one_batch_of_eight():
    generator = torch.Generator().manual_seed(0)
    lengths = [1, 5, 2, 7, 3, 1, 4, 6]
    index = torch.repeat_interleave(torch.arange(8), torch.tensor(lengths))
    inputs = torch.randn(len(index), 6, generator=generator)
    labels = torch.randint(0, 11, (len(index),), generator=generator)
    weight = torch.randn(11, 6, generator=generator).requires_grad_()

    whole = sequence_cross_entropy(inputs @ weight.T, labels, index, 8)
    (expected,) = torch.autograd.grad(whole, weight)
    for sample in range(8):
        rows = index == sample
        part = sequence_cross_entropy(inputs[rows] @ weight.T, labels[rows], torch.zeros_like(index[rows]), 1)
        (part / 8).backward()
    torch.testing.assert_close(weight.grad, expected, atol=1e-6, rtol=1e-5)
    # and it is not the plain mean over tokens, which weighs long samples more
    assert not torch.isclose(whole, F.cross_entropy(inputs @ weight.T, labels), atol=1e-3)


def test_no_token_is_an_error():
    empty = torch.zeros(0, dtype=torch.long)
    with pytest.raises(ValueError, match="no token is predicted"):
        sequence_cross_entropy(torch.zeros(0, 4), empty, empty, num_samples=2)


def test_ignore_index_is_the_one_of_transformers():
    # what torch's own cross-entropy leaves out, and so every Trainer and collator
    assert torch.isnan(F.cross_entropy(torch.zeros(1, 2), torch.tensor([IGNORE_INDEX])))
