"""Scores of robot sets: top-1, exact match, Jaccard, and precision/recall/F1 per robot.

Shapes: N tasks, R robots.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["per_robot_scores", "predicted_sets", "selection_scores", "set_matrix", "top_one"]


def set_matrix(sets: Sequence[Sequence[str]], robots: Sequence[str]) -> np.ndarray:
    """Turn robot names into a [N, R] bool matrix.

    Raises:
        ValueError: a name that is not in `robots`.
    """
    column = {robot: index for index, robot in enumerate(robots)}
    matrix = np.zeros((len(sets), len(robots)), dtype=bool)
    for row, names in enumerate(sets):
        for name in names:
            if name not in column:
                raise ValueError(f"row {row} names the robot {name!r}; expected one of {list(robots)}")
            matrix[row, column[name]] = True
    return matrix


def predicted_sets(probabilities: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Return the [N, R] bool sets: every robot at or above the threshold, and always the most probable one."""
    probabilities = np.asarray(probabilities, dtype=float)
    chosen = probabilities >= threshold
    if len(probabilities):
        chosen[np.arange(len(probabilities)), probabilities.argmax(axis=1)] = True
    return chosen


def top_one(gold: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence [N] of the most probable robot, and whether it is in the gold set, [N] bool."""
    rows, top = np.arange(len(probabilities)), probabilities.argmax(axis=1)
    return probabilities[rows, top], gold[rows, top]


def _precision_recall_f1(gold: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return precision, recall, F1 and support per robot, each [R]; 0 where undefined, as in scikit-learn.

    Own arithmetic and not `precision_recall_fscore_support`, since the bootstrap calls it a thousand times and this is
    about 30 times faster; the tests hold the two equal.
    """
    true_positive = (gold & predicted).sum(axis=0).astype(float)
    support, named = gold.sum(axis=0).astype(float), predicted.sum(axis=0).astype(float)
    precision = true_positive / np.maximum(named, 1)
    recall = true_positive / np.maximum(support, 1)
    f1 = 2 * true_positive / np.maximum(support + named, 1)
    return precision, recall, f1, support


def selection_scores(gold: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Score predicted robot sets.

    Args:
        gold (`np.ndarray`): [N, R] bool, at least one robot a row.
        predicted (`np.ndarray`): [N, R] bool.
        probabilities (`np.ndarray`): [N, R]; its argmax is the top-1 robot.

    Returns:
        `dict`: top1_in_set, exact_match, jaccard, macro_f1, weighted_f1, macro_precision, macro_recall;
        `single_accuracy` (exact match where the gold set has one robot), `multi_robot_exact_match` and
        `multi_robot_jaccard` (where it has several) only if such rows exist. The macro scores average over all R
        robots, also those without gold rows (0), as scikit-learn does.

    Raises:
        ValueError: no rows, or shapes differ.
    """
    if gold.shape != predicted.shape or gold.shape != probabilities.shape or not len(gold):
        raise ValueError(f"need equal shapes with rows; got {gold.shape}, {predicted.shape}, {probabilities.shape}")
    exact = (gold == predicted).all(axis=1)
    union = (gold | predicted).sum(axis=1)
    jaccard = np.where(union > 0, (gold & predicted).sum(axis=1) / np.maximum(union, 1), 1.0)
    precision, recall, f1, support = _precision_recall_f1(gold, predicted)
    scores = {
        "top1_in_set": top_one(gold, probabilities)[1].mean(),
        "exact_match": exact.mean(),
        "jaccard": jaccard.mean(),
        "macro_f1": f1.mean(),
        "weighted_f1": (f1 * support).sum() / max(support.sum(), 1.0),
        "macro_precision": precision.mean(),
        "macro_recall": recall.mean(),
    }
    single = gold.sum(axis=1) == 1
    if single.any():
        scores["single_accuracy"] = exact[single].mean()
    several = gold.sum(axis=1) > 1
    if several.any():
        scores |= {"multi_robot_exact_match": exact[several].mean(), "multi_robot_jaccard": jaccard[several].mean()}
    return {name: float(value) for name, value in scores.items()}


def per_robot_scores(gold: np.ndarray, predicted: np.ndarray, robots: Sequence[str]) -> dict[str, float]:
    """Return flat precision/<robot>, recall/<robot>, f1/<robot> and support/<robot>."""
    scores = zip(("precision", "recall", "f1", "support"), _precision_recall_f1(gold, predicted), strict=True)
    return {f"{name}/{robot}": float(values[r]) for name, values in scores for r, robot in enumerate(robots)}
