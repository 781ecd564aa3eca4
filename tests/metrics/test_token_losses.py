"""Perplexities by hand, and the token models that count."""

import numpy as np
import pytest

from hfvla.metrics.token_losses import fit_token_model, perplexity_by_position, token_loss_scores


def test_by_hand():
    losses = [np.log([2.0, 8.0]), np.log([8.0])]
    # Mean of ln 2, ln 8, ln 8 is ln 128 / 3.
    assert token_loss_scores(losses)["perplexity"] == pytest.approx(128 ** (1 / 3))
    values, counts = perplexity_by_position(losses)
    assert values == pytest.approx([4.0, 8.0]) and counts.tolist() == [2, 1]
    with pytest.raises(ValueError, match="2 answers without any"):
        token_loss_scores([np.zeros(0), np.zeros(0)])


def test_unigram_loss_is_the_entropy_of_what_was_counted():
    answers = [[0, 1, 1, 2]] * 50
    model = fit_token_model(answers, vocabulary=4, order=1)
    entropy = -(0.25 * np.log(0.25) * 2 + 0.5 * np.log(0.5))
    assert model.losses([0, 1, 1, 2]).mean() == pytest.approx(entropy, abs=1e-3)
    assert model.losses([3])[0] > 9  # never seen: the uniform part alone


def test_pairs_beat_single_tokens_where_order_tells():
    generator = np.random.default_rng(0)
    answers = []
    for _ in range(200):
        start = int(generator.integers(5))
        answers.append([(start + step) % 5 for step in range(6)])  # only the first token is free
    single, pairs = (fit_token_model(answers, 5, order) for order in (1, 2))
    losses = pairs.losses([3, 4, 0, 1])
    assert losses[1:].max() < 0.25 < 1.2 < losses[0]
    assert single.losses([3, 4, 0, 1]).mean() > 1.5


def test_losses_are_of_probabilities_that_add_up_to_one():
    model = fit_token_model([[0, 1], [1, 2], [2, 0], [0, 2]], vocabulary=3, order=2)
    for before in range(3):
        total = sum(np.exp(-model.losses([before, token])[1]) for token in range(3))
        assert total == pytest.approx(1.0)


def test_refusals():
    with pytest.raises(ValueError, match="token 7 is outside of the vocabulary of 4"):
        fit_token_model([[7]], vocabulary=4)
    with pytest.raises(ValueError, match="order 3"):
        fit_token_model([[1]], vocabulary=4, order=3)
