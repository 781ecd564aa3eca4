"""Does a confidence of 0.8 mean right 8 times in 10? Calibration errors, and the temperature that lowers them."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar

from hfvla.metrics.selection import predicted_sets

__all__ = [
    "binary_nll",
    "calibration_scores",
    "choose_threshold",
    "fit_temperature",
    "label_wise_ece",
    "reliability_bins",
    "sigmoid",
]

_LOG_TEMPERATURE_BOUND = 3.0  # temperatures from 0.05 to 20
_THRESHOLDS = np.round(np.arange(0.2, 0.801, 0.02), 2)


def reliability_bins(
    confidence: np.ndarray, correct: np.ndarray, bins: int = 15, equal_mass: bool = False
) -> dict[str, np.ndarray]:
    """Average confidence and accuracy by confidence bin; empty bins are left out.

    Args:
        confidence (`np.ndarray`): [N] in [0, 1].
        correct (`np.ndarray`): [N] bool.
        bins (`int`): number of bins, (low, high] each.
        equal_mass (`bool`): bins by quantile instead of by equal width; equal confidences share a bin.

    Returns:
        `dict`: count, confidence, accuracy, low, high; [B] each, B <= bins.
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    edges = np.linspace(0.0, 1.0, bins + 1)
    if equal_mass and len(confidence):
        inner = np.unique(np.quantile(confidence, edges[1:-1], method="inverted_cdf"))
        edges = np.concatenate([[0.0], inner, [1.0]])
    index = np.searchsorted(edges[1:-1], confidence, side="left")
    count = np.bincount(index, minlength=len(edges) - 1)
    used = count > 0
    total = np.maximum(count, 1)
    return {
        "count": count[used],
        "confidence": (np.bincount(index, confidence, len(edges) - 1) / total)[used],
        "accuracy": (np.bincount(index, correct, len(edges) - 1) / total)[used],
        "low": edges[:-1][used],
        "high": edges[1:][used],
    }


def _gaps(confidence: np.ndarray, correct: np.ndarray, bins: int, equal_mass: bool) -> tuple[np.ndarray, np.ndarray]:
    found = reliability_bins(confidence, correct, bins, equal_mass)
    return np.abs(found["accuracy"] - found["confidence"]), found["count"] / max(found["count"].sum(), 1)


def calibration_scores(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> dict[str, float]:
    """Return `ece` and `mce` over equal-width bins and `ece_equal_mass` over quantile bins.

    Shapes: confidence [N] in [0, 1]; correct [N] bool.

    Raises:
        ValueError: no rows.

    Source: Guo et al. 2017, eq. 3 and 5.
    """
    if not len(confidence):
        raise ValueError("calibration of 0 rows is undefined")
    gap, weight = _gaps(confidence, correct, bins, equal_mass=False)
    gap_mass, weight_mass = _gaps(confidence, correct, bins, equal_mass=True)
    return {
        "ece": float(gap @ weight),
        "mce": float(gap.max()),
        "ece_equal_mass": float(gap_mass @ weight_mass),
    }


def label_wise_ece(probabilities: np.ndarray, gold: np.ndarray, bins: int = 15) -> float:
    """Mean over labels of the ECE of "this label applies"; shapes [N, R] in [0, 1] and [N, R] bool."""
    errors = [np.dot(*_gaps(probabilities[:, r], gold[:, r], bins, equal_mass=False)) for r in range(gold.shape[1])]
    return float(np.mean(errors))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Logistic function, element by element, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(logits, dtype=float)))


def binary_nll(logits: np.ndarray, gold: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log likelihood of [N, R] independent labels at a temperature."""
    scaled = np.asarray(logits, dtype=float) / temperature
    return float(np.mean(np.logaddexp(0.0, scaled) - scaled * gold))


def fit_temperature(logits: np.ndarray, gold: np.ndarray) -> float:
    """Return the temperature in [0.05, 20] that minimises `binary_nll`; shapes [N, R]."""
    found = minimize_scalar(
        lambda log_temperature: binary_nll(logits, gold, float(np.exp(log_temperature))),
        bounds=(-_LOG_TEMPERATURE_BOUND, _LOG_TEMPERATURE_BOUND),
        method="bounded",
    )
    return float(np.exp(found.x))


def choose_threshold(probabilities: np.ndarray, gold: np.ndarray) -> float:
    """Return the threshold of 0.20, 0.22 ... 0.80 with the highest exact match + Jaccard, nearest to 0.5 in ties."""

    def score(threshold: float) -> tuple[float, float]:
        predicted = predicted_sets(probabilities, threshold)
        exact = (predicted == gold).all(axis=1).mean()
        jaccard = ((predicted & gold).sum(axis=1) / (predicted | gold).sum(axis=1)).mean()
        return round(float(exact + jaccard), 9), -abs(threshold - 0.5)

    return float(max(_THRESHOLDS, key=score))
