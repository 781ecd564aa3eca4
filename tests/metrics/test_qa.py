"""Multiple-choice scores by hand."""

import numpy as np
import pytest
from scipy.special import softmax

from hfvla.data.choices import rotate_choices
from hfvla.metrics.qa import (
    accuracy_scores,
    answer_shares,
    confusion_counts,
    cyclic_orders,
    fit_letter_temperature,
    grouped_scores,
    latency_scores,
    letter_nll,
    letter_probabilities,
    position_bias,
)

GOLD, PREDICTED, COUNTS = [0, 1, 3, 2, 1], [0, 0, 3, -1, 1], [2, 2, 4, 4, 4]


def test_accuracy_stands_beside_chance():
    scores = accuracy_scores(GOLD, PREDICTED, COUNTS)
    assert scores["accuracy"] == pytest.approx(3 / 5)  # questions 0, 2 and 4
    assert scores["chance"] == pytest.approx((2 * 1 / 2 + 3 * 1 / 4) / 5)  # 0.35
    assert scores["above_chance"] == pytest.approx((0.6 - 0.35) / 0.65)
    assert scores["answered"] == pytest.approx(4 / 5)


def test_no_answer_is_never_right():
    assert accuracy_scores([0, 0], [-1, -1], [2, 2])["accuracy"] == 0.0


def test_scores_by_letter_choices_and_kind():
    scores = grouped_scores(GOLD, PREDICTED, COUNTS, {"kind": ["light", "light", "sign", "sign", ""]})
    assert scores["accuracy_by_letter/B"] == pytest.approx(1 / 2)  # gold B in questions 1 (A said) and 4
    assert scores["n_by_letter/B"] == 2
    assert scores["accuracy_by_choices/2"] == pytest.approx(1 / 2)
    assert scores["chance_by_choices/4"] == pytest.approx(1 / 4)
    assert scores["accuracy_by_choices/4"] == pytest.approx(2 / 3)
    assert scores["accuracy_by_kind/sign"] == pytest.approx(1 / 2)
    assert scores["chance_by_letter/B"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert not any(key.endswith("kind/") for key in scores)


def test_confusion_has_a_column_for_no_answer():
    matrix = confusion_counts(GOLD, PREDICTED, COUNTS)
    assert matrix.tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 0]]


def test_shares_count_only_questions_that_offer_the_letter():
    shares = answer_shares(PREDICTED, COUNTS)
    assert shares == pytest.approx({"A": 2 / 5, "B": 1 / 5, "C": 0 / 3, "D": 1 / 3})
    assert set(answer_shares([0, 1], [2, 2])) == {"A", "B"}


@pytest.mark.parametrize(
    ("gold", "predicted", "counts", "message"),
    [
        ([0], [2], [2], "question 0 has 2 choices; its answer is 2"),
        ([3], [0], [3], "its gold choice is 3"),
        ([-1], [0], [3], "its gold choice is -1"),
        ([0, 1], [0], [2, 2], r"\[2, 1, 2\]"),
        ([], [], [], r"\[0, 0, 0\]"),
    ],
)
def test_impossible_answers_are_refused(gold, predicted, counts, message):
    with pytest.raises(ValueError, match=message):
        accuracy_scores(gold, predicted, counts)


def test_cyclic_orders_put_every_choice_at_every_letter_once():
    two, four = cyclic_orders([2, 4])
    assert two.tolist() == [[0, 1], [1, 0]]
    assert four[0].tolist() == [0, 1, 2, 3]
    assert four[1].tolist() == [3, 0, 1, 2] == list(rotate_choices("wxyz", 0, 1).order)
    assert all(sorted(column) == [0, 1, 2, 3] for column in four.T)


def _answers(gold, counts, choose):
    """Letters that `choose(choice order, gold choice)` gives under each cyclic order."""
    letters = np.full((len(gold), 4), -1)
    for row, (right, orders) in enumerate(zip(gold, cyclic_orders(counts), strict=True)):
        letters[row, : len(orders)] = [choose(order, right) for order in orders]
    return letters


def test_a_model_that_knows_has_no_position_bias():
    counts, gold = [2, 4, 4, 3], [1, 0, 3, 2]
    scores = position_bias(gold, _answers(gold, counts, lambda order, right: int(np.flatnonzero(order == right)[0])),
                           counts)  # fmt: skip
    assert scores["position_bias"] == 0 and scores["answer_share_spread"] == 0
    assert scores["accuracy_permuted"] == 1 and scores["same_choice"] == 1


def test_a_model_that_always_says_a_is_all_bias():
    counts, gold = [4, 4, 2], [1, 3, 0]
    scores = position_bias(gold, _answers(gold, counts, lambda order, right: 0), counts)
    assert scores["position_bias"] == pytest.approx(100)  # right exactly where the right choice stands at A
    assert scores["answer_share_spread"] == pytest.approx(100)
    assert scores["same_choice"] == 0
    assert scores["accuracy_permuted"] == pytest.approx((1 + 1 + 1) / (4 + 4 + 2))
    assert scores["accuracy_at/A"] == 1 and scores["accuracy_at/B"] == 0


def test_position_bias_in_points_by_hand():
    # One question, right choice 0. Orders: (0,1): A right, said A. (1,0): B right, said A. -> A 1.0, B 0.0.
    # A second question answered right under both orders: A 1.0, B 1.0. Mean A 1.0, B 0.5: 50 points.
    scores = position_bias([0, 0], np.array([[0, 0], [0, 1]]), [2, 2])
    assert scores["position_bias"] == pytest.approx(50)
    assert scores["answer_share_spread"] == pytest.approx(100 * (3 / 4 - 1 / 4))
    assert scores["same_choice"] == pytest.approx(1 / 2)


def test_missing_answers_are_no_agreement():
    scores = position_bias([0], np.array([[-1, -1]]), [2])
    assert scores["same_choice"] == 0 and scores["accuracy_permuted"] == 0


def test_position_bias_needs_every_order():
    with pytest.raises(ValueError, match="3 choices needs as many answers"):
        position_bias([0], np.array([[0, 1]]), [3])


def test_latency_percentiles():
    scores = latency_scores(np.arange(1, 101))
    assert scores == pytest.approx({"latency_p50_s": 50.5, "latency_p95_s": 95.05, "latency_max_s": 100})
    assert latency_scores([]) == {}


def test_probabilities_of_letters_that_a_question_lacks_are_zero():
    logits = np.array([[1.0, 2.0, 9.0, 9.0], [0.0, 1.0, 2.0, 3.0]])
    found = letter_probabilities(logits, np.array([2, 4]))
    assert found[0, :2] == pytest.approx(softmax([1, 2])) and found[0, 2:].tolist() == [0, 0]
    assert found[1] == pytest.approx(softmax([0, 1, 2, 3]))
    assert letter_nll(logits, [2, 4], [1, 3]) == pytest.approx(-np.log([found[0, 1], found[1, 3]]).mean())


def test_temperature_finds_the_factor_that_logits_were_blown_up_by():
    generator = np.random.default_rng(0)
    counts = generator.integers(2, 5, size=4000)
    logits = generator.normal(size=(4000, 4)) * 1.5
    chances = letter_probabilities(logits, counts)
    gold = np.array([generator.choice(4, p=p) for p in chances])
    assert fit_letter_temperature(3 * logits, counts, gold) == pytest.approx(3, rel=0.1)
