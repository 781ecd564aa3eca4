"""Baselines that read the task text only and need nothing but training rows: what a model with eyes must beat."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hfvla.metrics.calibration import choose_threshold, fit_temperature, sigmoid
from hfvla.metrics.selection import predicted_sets, selection_scores

__all__ = ["BASELINES", "TextBaseline", "fit_encoder_logreg", "fit_majority", "fit_tfidf_logreg"]

logger = logging.getLogger(__name__)

_STRENGTHS = (1.0, 4.0, 16.0)
_ENCODER_STRENGTHS = (1.0, 4.0, 16.0, 64.0)  # unit vectors of a few hundred numbers bear less shrinking
_WEIGHTS = ("balanced", None)
_MAX_TUNING_ROWS = 1500
_FOLDS = 5
_PRIOR_CLIP = 1e-4


@dataclass(frozen=True)
class TextBaseline:
    """A fitted baseline.

    Attributes:
        logits: maps N task texts to [N, R] logits.
        temperature: fitted on held-out folds of the training rows, like a model's on validation rows.
        threshold: of the predicted set, fitted on the same.
    """

    logits: Callable[[Sequence[str]], np.ndarray]
    temperature: float = 1.0
    threshold: float = 0.5

    def probabilities(self, tasks: Sequence[str]) -> np.ndarray:
        """Return calibrated probabilities [N, R]."""
        return sigmoid(self.logits(tasks) / self.temperature)


def fit_majority(
    tasks: Sequence[str], gold: np.ndarray, groups: Sequence[str] | None = None, seed: int = 0
) -> TextBaseline:
    """Predict the share of training rows that name each robot, whatever the task.

    Args:
        tasks: N texts, unused.
        gold (`np.ndarray`): [N, R] bool.
        groups: unused.
        seed: unused.
    """
    share = np.clip(np.asarray(gold, dtype=float).mean(axis=0), _PRIOR_CLIP, 1 - _PRIOR_CLIP)
    prior = np.log(share / (1 - share))
    return TextBaseline(logits=lambda texts: np.tile(prior, (len(texts), 1)))


def _features() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import FeatureUnion

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=40_000)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, max_features=60_000)
    return FeatureUnion([("words", words), ("characters", characters)])


def _fit_labels(features: Any, gold: np.ndarray, strength: float, weight: str | None) -> Callable[[Any], np.ndarray]:
    """Fit one logistic regression a robot; a robot that always or never occurs gets a constant."""
    from sklearn.linear_model import LogisticRegression

    prior = fit_majority([], gold).logits([""])[0]

    def fit(label: np.ndarray) -> Any:
        if not 0 < label.sum() < len(label):
            return None
        return LogisticRegression(C=strength, class_weight=weight, solver="liblinear").fit(features, label)

    models = [fit(label) for label in gold.T]  # not in threads: liblinear crashes there

    def logits(rows: Any) -> np.ndarray:
        columns = [
            np.full(rows.shape[0], constant) if model is None else model.decision_function(rows)
            for model, constant in zip(models, prior, strict=True)
        ]
        return np.stack(columns, axis=1)

    return logits


def _held_out_logits(folds: list[tuple], gold: np.ndarray, strength: float, weight: str | None) -> np.ndarray:
    held_out = np.zeros(gold.shape)
    for train, test, train_features, test_features in folds:
        held_out[test] = _fit_labels(train_features, gold[train], strength, weight)(test_features)
    return held_out


class _Encoded:
    """Vectors of a pretrained encoder in the place of features that are learned from the rows.

    Args:
        encode: maps texts to vectors [N, W].
    """

    def __init__(self, encode: Callable[[Sequence[str]], np.ndarray]) -> None:
        self.encode, self.known = encode, dict[str, np.ndarray]()

    def transform(self, texts: Sequence[str]) -> np.ndarray:
        """Return [N, W]; each different text is encoded once."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            self.known.update(zip(new, np.asarray(self.encode(new)), strict=True))
        return np.stack([self.known[text] for text in texts])

    fit_transform = transform


def _tune(
    tasks: Sequence[str],
    gold: np.ndarray,
    groups: Sequence[str],
    seed: int,
    make_features: Callable[[], Any] = _features,
    strengths: Sequence[float] = _STRENGTHS,
) -> tuple[float, str | None, float, float]:
    """Choose strength and class weight, temperature and threshold by grouped cross-validation.

    The score is the mean of top-1, exact match, Jaccard and macro F1, so that no column of the table is given away.
    """
    from sklearn.model_selection import GroupKFold

    rows = np.random.default_rng(seed).permutation(len(tasks))[:_MAX_TUNING_ROWS]
    texts, gold = [tasks[row] for row in rows], gold[rows]
    keys = np.asarray(groups)[rows]
    folds = []
    for train, test in GroupKFold(n_splits=min(_FOLDS, len(set(keys)))).split(texts, groups=keys):
        features = make_features()
        fitted = features.fit_transform([texts[row] for row in train])
        folds.append((train, test, fitted, features.transform([texts[row] for row in test])))
    best: tuple[float, tuple[float, str | None, float, float]] | None = None
    for strength in strengths:
        for weight in _WEIGHTS:
            logits = _held_out_logits(folds, gold, strength, weight)
            temperature = fit_temperature(logits, gold)
            probabilities = sigmoid(logits / temperature)
            threshold = choose_threshold(probabilities, gold)
            scores = selection_scores(gold, predicted_sets(probabilities, threshold), probabilities)
            score = np.mean([scores[name] for name in ("top1_in_set", "exact_match", "jaccard", "macro_f1")])
            if best is None or score > best[0]:
                best = (float(score), (strength, weight, temperature, threshold))
    assert best is not None
    logger.info("text baseline: held-out score %.3f with C, weight, temperature, threshold = %s", *best)
    return best[1]


def fit_tfidf_logreg(
    tasks: Sequence[str], gold: np.ndarray, groups: Sequence[str] | None = None, seed: int = 0
) -> TextBaseline:
    """TF-IDF of words (1-2 grams) and characters (2-5 grams), one logistic regression a robot.

    Strength, class weight, temperature and threshold are chosen by grouped 5-fold cross-validation inside the training
    rows (at most 1,500 of them); the final fit takes all rows.

    Args:
        tasks: N texts.
        gold (`np.ndarray`): [N, R] bool, at least one robot a row.
        groups: N keys that must not cross a fold; default: every text its own.
        seed: seed of the choice of tuning rows.

    Raises:
        ValueError: fewer than two groups, so nothing can be held out.
    """
    gold, groups = np.asarray(gold, dtype=bool), list(groups) if groups is not None else list(tasks)
    if len(set(groups)) < 2:
        raise ValueError(f"tfidf_logreg needs at least 2 different training tasks; got {len(set(groups))}")
    strength, weight, temperature, threshold = _tune(tasks, gold, groups, seed)
    features = _features()
    logits = _fit_labels(features.fit_transform(tasks), gold, strength, weight)
    return TextBaseline(lambda texts: logits(features.transform(texts)), temperature, threshold)


def fit_encoder_logreg(
    tasks: Sequence[str],
    gold: np.ndarray,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    *,
    encode: Callable[[Sequence[str]], np.ndarray],
) -> TextBaseline:
    """Vectors of a pretrained sentence encoder, one logistic regression a robot; chosen as `fit_tfidf_logreg` does.

    Args:
        tasks: N texts.
        gold (`np.ndarray`): [N, R] bool, at least one robot a row.
        groups: N keys that must not cross a fold; default: every text its own.
        seed: seed of the choice of tuning rows.
        encode: maps texts to vectors [N, W]; it is not trained.

    Raises:
        ValueError: fewer than two groups, so nothing can be held out.
    """
    gold, groups = np.asarray(gold, dtype=bool), list(groups) if groups is not None else list(tasks)
    if len(set(groups)) < 2:
        raise ValueError(f"encoder_logreg needs at least 2 different training tasks; got {len(set(groups))}")
    features = _Encoded(encode)
    features.transform(tasks)
    chosen = _tune(tasks, gold, groups, seed, lambda: features, _ENCODER_STRENGTHS)
    logits = _fit_labels(features.transform(tasks), gold, *chosen[:2])
    return TextBaseline(lambda texts: logits(features.transform(texts)), *chosen[2:])


BASELINES: dict[str, Callable[..., TextBaseline]] = {"majority": fit_majority, "tfidf_logreg": fit_tfidf_logreg}
"""Fit functions by name: `fit(tasks, gold, groups, seed) -> TextBaseline`."""
