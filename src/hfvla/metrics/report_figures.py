"""Figures that several families draw: ROC and precision-recall curves, and a gallery of the worst mistakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hfvla.family import Figure

__all__ = ["mistakes_figure", "roc_pr_figure"]

_MAX_POINTS = 200
_MAX_CLASSES = 8
_MISTAKES = 12


def roc_pr_figure(
    gold: np.ndarray, scores: np.ndarray, names: Sequence[str], title: str = "ROC and precision-recall"
) -> Figure | None:
    """Return both curves of each class, or None where no class has both kinds of rows.

    Args:
        gold: [N, C] bool.
        scores: [N, C]; higher means more likely.
        names: C classes.
        title: of the figure.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    gold, scores = np.asarray(gold, dtype=bool), np.asarray(scores, dtype=float)
    usable = [c for c in range(gold.shape[1]) if 0 < gold[:, c].sum() < len(gold) and np.isfinite(scores[:, c]).all()]
    if not usable:
        return None
    areas = {
        c: (roc_auc_score(gold[:, c], scores[:, c]), average_precision_score(gold[:, c], scores[:, c])) for c in usable
    }
    shown = sorted(usable, key=lambda c: areas[c][0])[:_MAX_CLASSES]  # the worst, where there are many
    roc: dict[str, Any] = {}
    precision: dict[str, Any] = {}
    for c in shown:
        false, true, _ = roc_curve(gold[:, c], scores[:, c])
        right, found, _ = precision_recall_curve(gold[:, c], scores[:, c])
        roc[names[c]] = _thinned(false, true)
        precision[names[c]] = _thinned(found[::-1], right[::-1])
    roc["chance"] = {"x": [0.0, 1.0], "y": [0.0, 1.0]}
    panels = [
        {"title": "ROC", "xlabel": "false positive rate", "ylabel": "true positive rate", "series": roc},
        {"title": "precision-recall", "xlabel": "recall", "ylabel": "precision", "series": precision},
    ]
    told = ", ".join(
        f"{names[c]} {areas[c][0]:.2f} / {areas[c][1]:.2f} ({gold[:, c].sum()} of {len(gold)})" for c in shown
    )
    left_out = f" {len(usable) - len(shown)} better classes are not drawn." if len(usable) > len(shown) else ""
    caption = f"Area under the ROC curve / average precision (positive rows of all): {told}.{left_out}"
    return Figure("roc_pr", "curves", title, {"panels": panels}, caption)


def _thinned(x: np.ndarray, y: np.ndarray) -> dict[str, list[float]]:
    take = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MAX_POINTS)).round().astype(int))
    return {"x": x[take].tolist(), "y": y[take].tolist()}


def mistakes_figure(
    badness: Sequence[float] | np.ndarray,
    describe: Callable[[int], Mapping[str, Any]],
    measure: str,
    most: int = _MISTAKES,
) -> Figure | None:
    """Return a gallery of the worst rows, or None where none is wrong.

    Args:
        badness: [N]; 0 and less is right, more is worse. What is no number is left out.
        describe: the n-th row as an example: title, image (a data URI or None), facts, bars, text.
        measure: what the order goes by, for the caption.
        most: rows shown.
    """
    scores = np.nan_to_num(np.asarray(badness, dtype=float), nan=0.0)
    wrong = int((scores > 0).sum())
    if not wrong:
        return None
    order = [int(n) for n in np.argsort(-scores, kind="stable")[: min(most, wrong)]]
    empty: dict[str, Any] = {"badge": "wrong", "bars": {}, "facts": [], "text": "", "image": None}
    examples = [{**empty, **describe(number)} for number in order]
    caption = (
        f"The {len(order)} worst of {wrong} wrong rows out of {len(scores)}, by {measure}. Pictures can be enlarged."
    )
    return Figure("worst_mistakes", "text_examples", "Worst mistakes", {"examples": examples}, caption)
