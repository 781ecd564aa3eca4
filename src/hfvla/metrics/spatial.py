"""Scores of predicted spatial relations: two three-way answers a pair of objects.

Shapes: N pairs; column 0 is left/centre/right, column 1 upper/middle/lower.
"""

from __future__ import annotations

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from hfvla.data.boxes import HORIZONTAL, VERTICAL

__all__ = ["confusion_matrices", "per_class_scores", "spatial_scores"]

_AXES = (("horizontal", HORIZONTAL), ("vertical", VERTICAL))


def spatial_scores(predicted: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Score predicted relations.

    Args:
        predicted: [N, 2] class numbers.
        wanted: [N, 2] class numbers; only pairs that have a label.

    Returns:
        `dict`: accuracy (over both answers of all pairs), pair_accuracy (both answers of a pair right; nine
        combinations), horizontal_accuracy, vertical_accuracy, macro_f1 (over the six classes), majority_accuracy
        (`accuracy` of the most frequent class each), pairs.

    Raises:
        ValueError: shapes differ, or there is no pair.
    """
    predicted, wanted = _checked(predicted, wanted)
    right = predicted == wanted
    f1 = [value for name, value in per_class_scores(predicted, wanted).items() if name.startswith("f1/")]
    majority = [np.bincount(wanted[:, axis], minlength=3).max() / len(wanted) for axis in range(2)]
    return {
        "accuracy": float(right.mean()),
        "pair_accuracy": float(right.all(1).mean()),
        "horizontal_accuracy": float(right[:, 0].mean()),
        "vertical_accuracy": float(right[:, 1].mean()),
        "macro_f1": float(np.mean(f1)),
        "majority_accuracy": float(np.mean(majority)),
        "pairs": float(len(wanted)),
    }


def per_class_scores(predicted: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Return flat precision/<class>, recall/<class>, f1/<class> and support/<class>; 0 where undefined."""
    predicted, wanted = _checked(predicted, wanted)
    scores: dict[str, float] = {}
    for axis, (_, names) in enumerate(_AXES):
        found = precision_recall_fscore_support(
            wanted[:, axis], predicted[:, axis], labels=range(3), zero_division=0.0
        )
        for score, values in zip(("precision", "recall", "f1", "support"), found, strict=True):
            scores |= {f"{score}/{name}": float(value) for name, value in zip(names, values, strict=True)}
    return scores


def confusion_matrices(predicted: np.ndarray, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """Return "horizontal" and "vertical", each [3, 3] counts: rows wanted, columns predicted."""
    predicted, wanted = _checked(predicted, wanted)
    return {
        name: confusion_matrix(wanted[:, axis], predicted[:, axis], labels=range(3))
        for axis, (name, _) in enumerate(_AXES)
    }


def _checked(predicted: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predicted, wanted = np.asarray(predicted, dtype=np.int64), np.asarray(wanted, dtype=np.int64)
    if predicted.shape != wanted.shape or predicted.shape[1:] != (2,) or not len(predicted):
        raise ValueError(f"need two [N, 2] arrays with pairs; got {predicted.shape} and {wanted.shape}")
    return predicted, wanted
