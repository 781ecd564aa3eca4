"""Scores of multiple-choice answers: accuracy beside chance, where the answers lie, and how long they take.

Shapes: N questions, L letters, S orders of the choices. A choice is its index in the question's own list; -1 in
`predicted` means that there was no answer, which is never right and is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from hfvla.data.choices import LETTERS

__all__ = [
    "accuracy_scores",
    "answer_shares",
    "confusion_counts",
    "cyclic_orders",
    "fit_letter_temperature",
    "grouped_scores",
    "latency_scores",
    "letter_nll",
    "letter_probabilities",
    "position_bias",
]

Indices = Sequence[int] | np.ndarray

_LOG_TEMPERATURE_BOUND = 3.0  # temperatures from 0.05 to 20


def _checked(gold: Indices, predicted: Indices, counts: Indices) -> tuple[np.ndarray, ...]:
    """Return the three as integer arrays [N].

    Raises:
        ValueError: lengths differ, no rows, or an index that is none of the question's choices.
    """
    arrays = tuple(np.asarray(values, dtype=int) for values in (gold, predicted, counts))
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) != 1 or not lengths[0]:
        raise ValueError(f"need one gold choice, answer and choice count a question; got {lengths} of them")
    gold, predicted, counts = arrays
    for name, values, lowest in (("gold choice", gold, 0), ("answer", predicted, -1)):
        wrong = np.flatnonzero((values < lowest) | (values >= counts))
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(f"question {row} has {counts[row]} choices; its {name} is {values[row]}")
    return arrays


def accuracy_scores(gold: Indices, predicted: Indices, counts: Indices) -> dict[str, float]:
    """Return `accuracy`, `chance` (the mean of 1 / choices), `above_chance` and `answered`.

    `above_chance` is (accuracy - chance) / (1 - chance): 0 for guessing, 1 for perfect, whatever the mix of 2, 3 and 4
    choices.

    Args:
        gold: [N] index of the right choice.
        predicted: [N] index of the answer, -1 for none.
        counts: [N] choices of each question.

    Raises:
        ValueError: see `_checked`.
    """
    gold, predicted, counts = _checked(gold, predicted, counts)
    accuracy, chance = float((gold == predicted).mean()), float((1.0 / counts).mean())
    return {
        "accuracy": accuracy,
        "chance": chance,
        "above_chance": (accuracy - chance) / (1.0 - chance) if chance < 1 else 0.0,
        "answered": float((predicted >= 0).mean()),
    }


def grouped_scores(
    gold: Indices, predicted: Indices, counts: Indices, by: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Return accuracy, chance and rows by letter, by number of choices, and by each property in `by`.

    Args:
        gold: [N].
        predicted: [N].
        counts: [N].
        by: a name such as "kind" with N values; "" (unknown) is left out.

    Returns:
        `dict`: flat: `accuracy_by_kind/<value>`, `chance_by_kind/<value>`, `n_by_kind/<value>`, the same for "letter"
        (of the right choice), "choices" and every other name.
    """
    gold, predicted, counts = _checked(gold, predicted, counts)
    properties = {
        "letter": [LETTERS[index] for index in gold],
        "choices": [str(count) for count in counts],
        **{name: list(map(str, values)) for name, values in by.items()},
    }
    right, chance, scores = gold == predicted, 1.0 / counts, {}
    for name, values in properties.items():
        keys = np.asarray(values)
        for key in sorted(set(values) - {""}):
            members = keys == key
            scores[f"accuracy_by_{name}/{key}"] = float(right[members].mean())
            scores[f"chance_by_{name}/{key}"] = float(chance[members].mean())
            scores[f"n_by_{name}/{key}"] = float(members.sum())
    return scores


def confusion_counts(gold: Indices, predicted: Indices, counts: Indices) -> np.ndarray:
    """Return the counts [L, L + 1] of right letter against answered letter; the last column is "no answer"."""
    gold, predicted, _ = _checked(gold, predicted, counts)
    matrix = np.zeros((len(LETTERS), len(LETTERS) + 1), dtype=int)
    np.add.at(matrix, (gold, np.where(predicted < 0, len(LETTERS), predicted)), 1)
    return matrix


def answer_shares(choices: Indices, counts: Indices) -> dict[str, float]:
    """Return the share of each letter among the questions that offer it; -1 is no letter.

    Args:
        choices: [N] index of the answers, or of the right choices.
        counts: [N].
    """
    choices, counts = np.asarray(choices, dtype=int), np.asarray(counts, dtype=int)
    return {
        letter: float((choices[counts > index] == index).mean())
        for index, letter in enumerate(LETTERS)
        if (counts > index).any()
    }


def cyclic_orders(counts: Indices) -> list[np.ndarray]:
    """Return, for each question with k choices, its k cyclic orders [k, k]: every choice stands once at every letter.

    Row s, column p is the index of the choice that stands at letter p in order s: all moved s places on, the last to
    the front, as `hfvla.data.choices.rotate_choices` does. Row 0 is the order given.
    """
    return [(np.arange(k)[None, :] - np.arange(k)[:, None]) % k for k in map(int, counts)]


def position_bias(gold: Indices, letters: np.ndarray, counts: Indices) -> dict[str, float]:
    """How much the place of a choice decides, from answers to the same questions under all cyclic orders.

    Under `cyclic_orders` the right choice of every question stands once at every letter. So a model without a
    preference is right equally often wherever it stands, and gives every letter equally often.

    Args:
        gold: [N] index of the right choice in the order given.
        letters: [N, L] int, column s: the letter answered under order s, -1 for none; only the first k columns of a
            question with k choices count.
        counts: [N] choices k of each question.

    Returns:
        `dict`: `position_bias`, the accuracy where the right choice stands at its best letter minus that at its worst,
        in points; `answer_share_spread`, the share of the most given letter minus that of the least given, in points
        (both averaged over the numbers of choices, weighted by questions); `same_choice`, the share of questions
        where all orders got the same choice, none counted as one; `accuracy_permuted`, over all orders; and
        `accuracy_at/<letter>`.

    Raises:
        ValueError: lengths differ, no questions, or not one answer an order.
    """
    gold, counts = np.asarray(gold, dtype=int), np.asarray(counts, dtype=int)
    letters = np.asarray(letters, dtype=int)
    if not len(gold) == len(letters) == len(counts) or not len(gold):
        raise ValueError(f"need answers for every question; got {len(gold)}, {len(letters)}, {len(counts)}")
    if letters.ndim != 2 or letters.shape[1] < counts.max():
        raise ValueError(f"a question with {counts.max()} choices needs as many answers; got shape {letters.shape}")
    accuracy_spread, share_spread, same = 0.0, 0.0, 0
    at: dict[str, list[np.ndarray]] = {}
    for k in np.unique(counts):
        rows = np.flatnonzero(counts == k)
        said = letters[rows, :k]
        places = (gold[rows, None] + np.arange(k)) % k  # letter of the right choice under each order
        right = said == places
        accuracy = [float(right[places == place].mean()) for place in range(k)]
        shares = [float((said == place).mean()) for place in range(k)]
        accuracy_spread += len(rows) / len(gold) * (max(accuracy) - min(accuracy))
        share_spread += len(rows) / len(gold) * (max(shares) - min(shares))
        chosen = np.where(said < 0, -1, (said - np.arange(k)) % k)
        same += int(((chosen == chosen[:, :1]).all(axis=1) & (chosen[:, 0] >= 0)).sum())
        for place in range(k):
            at.setdefault(LETTERS[place], []).append(right[places == place])
    merged = {letter: np.concatenate(found) for letter, found in at.items()}
    return {
        "position_bias": 100.0 * accuracy_spread,
        "answer_share_spread": 100.0 * share_spread,
        "same_choice": same / len(gold),
        "accuracy_permuted": float(np.concatenate(list(merged.values())).mean()),
        **{f"accuracy_at/{letter}": float(found.mean()) for letter, found in merged.items()},
    }


def latency_scores(seconds: Sequence[float]) -> dict[str, float]:
    """Return `latency_p50_s`, `latency_p95_s` and `latency_max_s` of N questions; empty without any."""
    if not len(seconds):
        return {}
    p50, p95 = np.percentile(seconds, [50, 95])
    return {"latency_p50_s": float(p50), "latency_p95_s": float(p95), "latency_max_s": float(np.max(seconds))}


def _log_probabilities(logits: np.ndarray, counts: np.ndarray, temperature: float) -> np.ndarray:
    logits, counts = np.asarray(logits, dtype=float), np.asarray(counts, dtype=int)
    valid = np.arange(logits.shape[1]) < counts[:, None]
    scaled = np.where(valid, logits / temperature, -np.inf)
    return scaled - logsumexp(scaled, axis=1, keepdims=True)


def letter_probabilities(logits: np.ndarray, counts: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax of [N, L] letter logits over each question's own `counts` [N] first letters; 0 elsewhere."""
    return np.exp(_log_probabilities(logits, counts, temperature))


def letter_nll(logits: np.ndarray, counts: np.ndarray, gold: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log likelihood of the right letters; logits [N, L], counts [N], gold [N]."""
    found = _log_probabilities(logits, counts, temperature)
    return float(-found[np.arange(len(found)), np.asarray(gold, dtype=int)].mean())


def fit_letter_temperature(logits: np.ndarray, counts: np.ndarray, gold: np.ndarray) -> float:
    """Return the temperature in [0.05, 20] that minimises `letter_nll`.

    Source: Guo et al. 2017, section 4.2.
    """
    found = minimize_scalar(
        lambda log_temperature: letter_nll(logits, counts, gold, float(np.exp(log_temperature))),
        bounds=(-_LOG_TEMPERATURE_BOUND, _LOG_TEMPERATURE_BOUND),
        method="bounded",
    )
    return float(np.exp(found.x))
