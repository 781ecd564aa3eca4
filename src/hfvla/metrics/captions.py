"""Scores of captions against one or more references: CIDEr without Java, BLEU and ROUGE-L by their usual packages.

Shapes: N pictures, each with one candidate and one or more references.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hfvla.errors import MissingExtraError
from hfvla.metrics.caption_words import caption_words

__all__ = [
    "DocumentFrequencies",
    "bleu",
    "bleu_counts",
    "caption_scores",
    "cider_scores",
    "fit_document_frequencies",
    "rouge_l_scores",
]

_LONGEST = 4  # words of an n-gram
_SIGMA = 6.0  # of the penalty on lengths that differ
_SCALE = 10.0

Gram = tuple[str, ...]


@dataclass(frozen=True)
class DocumentFrequencies:
    """In how many pictures' references each n-gram stands.

    Attributes:
        counts: pictures by n-gram.
        pictures: how many there are.
    """

    counts: Mapping[Gram, int]
    pictures: int


def _grams(text: str) -> Counter[Gram]:
    words = caption_words(text)
    return Counter(
        tuple(words[start : start + size]) for size in range(1, _LONGEST + 1) for start in range(len(words) - size + 1)
    )


def fit_document_frequencies(references: Sequence[Sequence[str]]) -> DocumentFrequencies:
    """Count n-grams over the references of N pictures, each picture once."""
    counts: Counter[Gram] = Counter()
    for captions in references:
        counts.update({gram for caption in captions for gram in _grams(caption)})
    return DocumentFrequencies(counts, len(references))


@dataclass(frozen=True)
class _Vector:
    """Weights of a caption's n-grams by size, their lengths, and the number of word pairs."""

    weights: tuple[dict[Gram, float], ...]
    norms: np.ndarray
    pairs: int


def _vector(text: str, frequencies: DocumentFrequencies) -> _Vector:
    weights: tuple[dict[Gram, float], ...] = tuple({} for _ in range(_LONGEST))
    pictures, pairs = np.log(float(frequencies.pictures)), 0
    for gram, count in _grams(text).items():
        rarity = pictures - np.log(max(1.0, float(frequencies.counts.get(gram, 0))))
        weights[len(gram) - 1][gram] = float(count * rarity)
        pairs += count if len(gram) == 2 else 0
    norms = np.array([np.sqrt(sum(value**2 for value in each.values())) for each in weights])
    return _Vector(weights, norms, pairs)


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    """Mean over n-gram sizes of the clipped cosine, times the penalty on lengths."""
    found = np.zeros(_LONGEST)
    for size, (ours, theirs) in enumerate(zip(candidate.weights, reference.weights, strict=True)):
        product = candidate.norms[size] * reference.norms[size]
        if product:
            shared = sum(min(value, theirs[gram]) * theirs[gram] for gram, value in ours.items() if gram in theirs)
            found[size] = shared / product
    return float(found.mean() * np.exp(-((candidate.pairs - reference.pairs) ** 2) / (2 * _SIGMA**2)))


def cider_scores(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    frequencies: DocumentFrequencies | None = None,
) -> np.ndarray:
    """Return CIDEr-D of each picture, [N]; their mean is the score of the set, which papers give times 100.

    Args:
        candidates: N captions.
        references: of each picture at least one.
        frequencies: of n-grams in a set of references; default: of these. Words that stand in the references of all
            pictures weigh nothing, so the score of one picture alone, without `frequencies`, is 0.

    Raises:
        ValueError: lengths differ, there are no pictures, or one has no reference.

    Source: Vedantam et al. 2015; as in the COCO caption evaluation the length of a caption is its number of word
    pairs.
    """
    _check(candidates, references)
    frequencies = fit_document_frequencies(references) if frequencies is None else frequencies
    scores = []
    for candidate, captions in zip(candidates, references, strict=True):
        ours = _vector(candidate, frequencies)
        scores.append(_SCALE * np.mean([_similarity(ours, _vector(caption, frequencies)) for caption in captions]))
    return np.array(scores)


def bleu_counts(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return what BLEU adds up, [N, 10]: n-grams that match and that there are, of sizes 1 to 4, and two lengths.

    Raises:
        MissingExtraError: sacrebleu is not installed.
        ValueError: see `cider_scores`.
    """
    _check(candidates, references)
    scorer = _sacrebleu().BLEU(lowercase=True, effective_order=True)
    rows = []
    for candidate, captions in zip(candidates, references, strict=True):
        found = scorer.sentence_score(candidate, list(captions))
        rows.append([*found.counts, *found.totals, found.sys_len, found.ref_len])
    return np.array(rows, dtype=np.int64)


def bleu(counts: np.ndarray) -> float:
    """Return BLEU-4 in 0..100 of the rows of `bleu_counts`, any choice of them: that of a whole set, not a mean."""
    total = np.asarray(counts).sum(axis=0).tolist()
    size = _LONGEST
    return float(
        _sacrebleu()
        .BLEU.compute_bleu(
            correct=total[:size], total=total[size : 2 * size], sys_len=total[-2], ref_len=total[-1],
            smooth_method="exp",
        )
        .score
    )  # fmt: skip


def rouge_l_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return ROUGE-L (F1 of the longest common subsequence, no stemming) against the best reference, [N].

    The COCO evaluation weighs recall more (beta 1.2) and takes precision and recall from different references.

    Raises:
        MissingExtraError: rouge-score is not installed.
        ValueError: see `cider_scores`.
    """
    _check(candidates, references)
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise MissingExtraError("rouge-score", "scoring", "ROUGE-L") from error
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    return np.array(
        [
            scorer.score_multi(list(captions), candidate)["rougeL"].fmeasure
            for candidate, captions in zip(candidates, references, strict=True)
        ]
    )


def caption_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return `cider` (times 1), `bleu` (0..100), `rouge_l` (0..1) and `words`, the mean length of a candidate.

    Raises:
        MissingExtraError: sacrebleu or rouge-score is not installed.
        ValueError: see `cider_scores`.
    """
    return {
        "cider": float(cider_scores(candidates, references).mean()),
        "bleu": bleu(bleu_counts(candidates, references)),
        "rouge_l": float(rouge_l_scores(candidates, references).mean()),
        "words": float(np.mean([len(caption_words(candidate)) for candidate in candidates])),
    }


def _check(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(candidates) != len(references) or not len(candidates):
        raise ValueError(f"need references of every candidate; got {len(candidates)} and {len(references)}")
    bare = [number for number, captions in enumerate(references) if not len(captions)]
    if bare:
        raise ValueError(f"candidate {bare[0]} has no reference ({len(bare)} of {len(references)} have none)")


def _sacrebleu() -> Any:
    try:
        from sacrebleu.metrics import bleu as module
    except ImportError as error:
        raise MissingExtraError("sacrebleu", "scoring", "BLEU") from error
    return module
