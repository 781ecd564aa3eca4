"""Scores of multi-robot plans: who does which subtask, and in which order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr

from hfvla.data.text import clean_text

__all__ = ["match_subtasks", "plan_scores"]

_ROBOT_TIE_BREAK = 1e-6  # only decides between equally similar texts


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W_]+", clean_text(text).lower()))


def _similarity(first: str, second: str) -> float:
    """Jaccard similarity of the words."""
    one, two = _words(first), _words(second)
    return len(one & two) / len(one | two) if one | two else 0.0


def match_subtasks(
    gold: Sequence[Mapping[str, Any]], predicted: Sequence[Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Pair gold with predicted subtasks, one to one, so that the summed word similarity is highest.

    Between equally similar texts the pair with the same robot wins. Pairs without a common word are dropped.

    Args:
        gold: steps with the keys subtask, robot, order.
        predicted: the same.
    """
    similarity = np.array([[_similarity(g["subtask"], p["subtask"]) for p in predicted] for g in gold])
    if similarity.size == 0:
        return []
    same = np.array([[g["robot"] == p["robot"] for p in predicted] for g in gold])
    pairs = zip(*linear_sum_assignment(similarity + _ROBOT_TIE_BREAK * same, maximize=True), strict=True)
    return [(gold[g], predicted[p]) for g, p in pairs if similarity[g, p] > 0]


def _order_correlation(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> float | None:
    """Spearman's rho of the execution orders, ties at their mean rank.

    None when fewer than two steps match or the gold steps are all parallel; 0 when only the predicted ones are.
    """
    orders = np.array([(gold["order"], predicted["order"]) for gold, predicted in pairs], dtype=float).reshape(-1, 2)
    if len(orders) < 2 or np.ptp(orders[:, 0]) == 0:
        return None
    if np.ptp(orders[:, 1]) == 0:
        return 0.0
    return float(spearmanr(orders[:, 0], orders[:, 1]).statistic)


def plan_scores(
    gold: Sequence[Sequence[Mapping[str, Any]]], predicted: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[str, float]:
    """Score plans; every number is a mean over plans.

    Args:
        gold: N plans with at least one step each.
        predicted: N plans, possibly empty.

    Returns:
        `dict`: `subtask_accuracy` (share of gold subtasks whose match has the gold robot), `subtask_match` (share that
        has a match), `extra_subtasks` (predicted and unmatched), `order_spearman` over the `order_plans` plans
        where it is defined (two matched steps, gold not all parallel); left out when there is none.

    Raises:
        ValueError: the two differ in length, are empty, or a gold plan is empty.
    """
    if len(gold) != len(predicted) or not gold or not all(gold):
        raise ValueError(f"need as many plans as gold plans, none of those empty; got {len(predicted)}, {len(gold)}")
    accuracy, matched, extra, correlations = [], [], [], []
    for steps, guesses in zip(gold, predicted, strict=True):
        pairs = match_subtasks(steps, guesses)
        accuracy.append(sum(g["robot"] == p["robot"] for g, p in pairs) / len(steps))
        matched.append(len(pairs) / len(steps))
        extra.append(len(guesses) - len(pairs))
        correlations.append(_order_correlation(pairs))
    defined = [value for value in correlations if value is not None]
    scores = {
        "subtask_accuracy": float(np.mean(accuracy)),
        "subtask_match": float(np.mean(matched)),
        "extra_subtasks": float(np.mean(extra)),
        "order_plans": float(len(defined)),
    }
    if defined:
        scores["order_spearman"] = float(np.mean(defined))
    return scores
