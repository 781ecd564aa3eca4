"""Baselines without a network: pictures and captions by colours and words, boxes and relations by words alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["ColourLayout", "fit_colour_layout", "fit_sentence_boxes", "fit_sentence_relations", "picture_features"]

logger = logging.getLogger(__name__)

_SIDE = 12
_CELLS = 3
_LEVELS = 4  # of each channel in the colour histograms
_STRENGTHS = (0.03, 0.3, 3.0)  # times the mean eigenvalue
_MAX_PICTURES = 4000
_MAX_WORDS = 800  # vectors of a large test set must fit into memory
_HELD_OUT = 0.2
_WORDS = r"[\w-]+"


def picture_features(picture: Any) -> np.ndarray:
    """Return a picture's colour layout [F]: 12 x 12 colours, and a histogram of 64 colours in each of 3 x 3 cells.

    Args:
        picture: PIL image.
    """
    from PIL import Image

    small = picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    side = 16 * _CELLS
    pixels = np.asarray(picture.convert("RGB").resize((side, side), Image.Resampling.BOX)).astype(np.int64)
    colour = (pixels * _LEVELS // 256) @ np.array([_LEVELS**2, _LEVELS, 1])  # [48, 48]
    cells = colour.reshape(_CELLS, 16, _CELLS, 16).transpose(0, 2, 1, 3).reshape(_CELLS**2, -1)
    counts = np.stack([np.bincount(cell, minlength=_LEVELS**3) for cell in cells]) / cells.shape[1]
    return np.concatenate([np.asarray(small).ravel() / 255.0, np.sqrt(counts).ravel()])


@dataclass(frozen=True)
class ColourLayout:
    """A fitted baseline; vectors of both sides have length 1, so that their product is a cosine.

    Attributes:
        images: maps features [I, F] of pictures (`picture_features`) to vectors [I, D].
        texts: maps T captions to vectors [T, D].
        strength: of the ridge, as it was chosen.
    """

    images: Callable[[np.ndarray], np.ndarray]
    texts: Callable[[Sequence[str]], np.ndarray]
    strength: float


def fit_colour_layout(
    features: np.ndarray, captions: Sequence[Sequence[str]], groups: Sequence[str], seed: int = 0
) -> ColourLayout:
    """Fit a ridge regression from colour layout to the TF-IDF words of the captions; compare the words by cosine.

    The strength is chosen by R@10 on a fifth of the groups, held out.

    Args:
        features: [I, F] of training pictures (`picture_features`).
        captions: one or more captions of each.
        groups: I keys (buildings); those held out are never seen in fitting.
        seed: which pictures are used where there are more than 4,000, and which groups are held out.

    Raises:
        ValueError: fewer than two groups, so nothing can be held out.
    """
    keys = np.asarray(groups)
    if len(set(groups)) < 2:
        raise ValueError(f"colour_layout needs at least 2 different training groups; got {len(set(groups))}")
    generator = np.random.default_rng(seed)
    kept = np.sort(generator.permutation(len(keys))[:_MAX_PICTURES])
    features, keys, captions = features[kept], keys[kept], [captions[number] for number in kept]
    different = generator.permutation(np.unique(keys))
    held_out = np.isin(keys, different[: max(1, int(_HELD_OUT * len(different)))])
    if held_out.all():
        held_out = keys == different[0]
    scores = {}
    train = [captions[number] for number in np.flatnonzero(~held_out)]
    asked = [captions[number][0] for number in np.flatnonzero(held_out)]
    for strength, fitted in _fit_all(features[~held_out], train).items():
        cosines = fitted.texts(asked) @ fitted.images(features[held_out]).T
        rank = (cosines > np.diagonal(cosines)[:, None]).sum(axis=1)
        scores[strength] = float((rank < 10).mean()) + float((1 / (1 + rank)).mean())
    best = max(scores, key=lambda strength: (scores[strength], strength))
    logger.info("colour_layout: ridge strength %g", best)
    return _fit_all(features, captions, (best,))[best]


def _fit_all(
    features: np.ndarray, captions: Sequence[Sequence[str]], strengths: Sequence[float] = _STRENGTHS
) -> dict[float, ColourLayout]:
    """Fit one ridge a strength; the decomposition of the pictures is shared."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(
        ngram_range=(1, 2), token_pattern=_WORDS, sublinear_tf=True, min_df=min(3, len(captions)),
        max_features=_MAX_WORDS, dtype=np.float32,
    )  # fmt: skip
    told = words.fit_transform(" . ".join(each) for each in captions).toarray()  # [I, W]
    mean, common = features.mean(axis=0), told.mean(axis=0)
    centred = features - mean
    values, vectors = np.linalg.eigh(centred.T @ centred)
    values = np.maximum(values, 0.0)
    projected = vectors.T @ (centred.T @ (told - common))  # [F, W]

    def texts(asked: Sequence[str]) -> np.ndarray:
        return _unit(words.transform(asked).toarray() - common)

    def fitted(strength: float) -> ColourLayout:
        weights = vectors @ (projected / (values + strength * max(float(values.mean()), 1e-12))[:, None])
        return ColourLayout(lambda pictures: _unit((pictures - mean) @ weights), texts, strength)

    return {strength: fitted(strength) for strength in strengths}


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def fit_sentence_boxes(sentences: Sequence[str], boxes: np.ndarray) -> Callable[[Sequence[str]], np.ndarray]:
    """Fit a ridge regression from the words of a sentence to its box: what words alone tell of where it points.

    Args:
        sentences: N training sentences.
        boxes: [N, 4] cxcywh.

    Returns:
        Function from M sentences to boxes [M, 4] with an area.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    words = TfidfVectorizer(ngram_range=(1, 3), token_pattern=_WORDS, max_features=20_000)
    model = Ridge(alpha=1.0).fit(words.fit_transform(sentences), boxes)

    def predict(asked: Sequence[str]) -> np.ndarray:
        found = np.asarray(model.predict(words.transform(asked)))
        return np.concatenate([np.clip(found[:, :2], 0, 1), np.clip(found[:, 2:], 0.01, 1)], axis=1)

    return predict


def fit_sentence_relations(
    pairs: Sequence[tuple[str, str]], relations: np.ndarray
) -> Callable[[Sequence[tuple[str, str]]], np.ndarray]:
    """Fit logistic regressions from the words of two sentences to where the second's object lies from the first's.

    Args:
        pairs: N training pairs of sentences.
        relations: [N, 2] classes.

    Returns:
        Function from M pairs to classes [M, 2].
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    def joined(asked: Sequence[tuple[str, str]]) -> list[str]:
        sides = (("a", 0), ("b", 1))
        return [" ".join(f"{name}:{word}" for name, i in sides for word in pair[i].lower().split()) for pair in asked]

    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", max_features=20_000)
    features = words.fit_transform(joined(pairs))
    models = []
    for column in np.asarray(relations).T:
        different = np.unique(column)
        fitted = len(different) > 1
        models.append(LogisticRegression(C=1.0, max_iter=200).fit(features, column) if fitted else different[0])

    def predict(asked: Sequence[tuple[str, str]]) -> np.ndarray:
        found = words.transform(joined(asked))
        columns = [
            model.predict(found) if hasattr(model, "predict") else np.full(len(asked), model) for model in models
        ]
        return np.stack(columns, axis=1).astype(np.int64)

    return predict
