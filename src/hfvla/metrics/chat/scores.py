"""Scores of written answers, row by row and summed up: each row by what it asks for.

Shapes: N rows; a score that does not apply to a row is NaN there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from hfvla.data.samples.chat import ChatSample
from hfvla.metrics.boxes import box_overlaps
from hfvla.metrics.captions import bleu, bleu_counts, cider_scores, rouge_l_scores
from hfvla.metrics.chat.reading import box_scale, read_boxes, read_choice
from hfvla.metrics.chat.tasks import Task, choices_of, final_answer, gold_choice, references_of
from hfvla.metrics.vqa import normalise_answer, vqa_accuracy

__all__ = ["MAIN_SCORE", "ChatScores", "Prediction", "score_answers"]

Prediction = str | np.ndarray | None
"""A text; boxes [K, 4] as shares; or None where a baseline has no answer to such a row."""

MAIN_SCORE: dict[Task, str] = {
    "vqa": "vqa_accuracy",
    "exact": "exact_answer",
    "choice": "choice_accuracy",
    "box": "box_accuracy_50",
    "caption": "cider",
    "text": "text_rouge_l",
}
"""The score of each task that figures show."""


@dataclass
class ChatScores:
    """Scores of N answers.

    Attributes:
        values: [N] by name; NaN where it does not apply.
        counts: [N, 10] what BLEU adds up for captions, 0 elsewhere; None without captions.
    """

    values: dict[str, np.ndarray] = field(default_factory=dict)
    counts: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name, for resampling."""
        return self.values | ({} if self.counts is None else {"bleu_counts": self.counts})

    def rows(self, index: np.ndarray) -> ChatScores:
        """Return the scores of some rows."""
        counts = None if self.counts is None else self.counts[index]
        return ChatScores({name: values[index] for name, values in self.values.items()}, counts)

    def summary(self) -> dict[str, float]:
        """Return the mean of each score over the rows that have it, and BLEU of all captions."""
        found = {
            name: float(values[~np.isnan(values)].mean())
            for name, values in self.values.items()
            if not np.isnan(values).all()
        }
        if self.counts is not None and self.counts[:, -1].any():
            found["bleu"] = bleu(self.counts)
        return found


def score_answers(
    samples: Sequence[ChatSample], tasks: Sequence[Task], predictions: Sequence[Prediction]
) -> ChatScores:
    """Score N answers.

    Args:
        samples: N whole samples.
        tasks: what each asks for (`tasks_of`).
        predictions: N answers.

    Returns:
        `ChatScores`: `vqa_accuracy`, and `vqa_accuracy_cleaned` (unanimous answers are cleaned up too);
        `exact_answer` (equal after the same clean-up); `choice_accuracy` and `choice_read` (whether a choice could be
        read); `box_accuracy_50`, `box_iou` and `box_read`; `cider`, `rouge_l` and BLEU of captions; `text_rouge_l` and
        `text_exact` of longer answers.

    Raises:
        MissingExtraError: captions, and no package for them.
    """
    scores = ChatScores()
    for task in dict.fromkeys(tasks):
        answered = [n for n, found in enumerate(tasks) if found == task and predictions[n] is not None]
        answered = [n for n in answered if references_of(samples[n]) or samples[n].boxes or choices_of(samples[n])]
        if answered:
            _SCORERS[task](scores, [samples[n] for n in answered], [predictions[n] for n in answered],
                           np.array(answered), len(samples))  # fmt: skip
    return scores


def _put(scores: ChatScores, name: str, index: np.ndarray, values: Sequence[float] | np.ndarray, rows: int) -> None:
    scores.values.setdefault(name, np.full(rows, np.nan))[index] = np.asarray(values, dtype=float)


def _score_vqa(scores: ChatScores, samples: list, texts: list, index: np.ndarray, rows: int) -> None:
    pairs = [(final_answer(text, sample), sample.references) for text, sample in zip(texts, samples, strict=True)]
    _put(scores, "vqa_accuracy", index, [vqa_accuracy(*pair) for pair in pairs], rows)
    # Models that chat begin with a capital letter, which the official script counts as wrong where all people agree.
    cleaned = [vqa_accuracy(*pair, always_normalise=True) for pair in pairs]
    _put(scores, "vqa_accuracy_cleaned", index, cleaned, rows)


def _score_exact(scores: ChatScores, samples: list, texts: list, index: np.ndarray, rows: int) -> None:
    found = [
        normalise_answer(final_answer(text, sample)) in {normalise_answer(told) for told in references_of(sample)}
        for text, sample in zip(texts, samples, strict=True)
    ]
    _put(scores, "exact_answer", index, found, rows)


def _score_choice(scores: ChatScores, samples: list, texts: list, index: np.ndarray, rows: int) -> None:
    gold = np.array([gold_choice(sample) for sample in samples])
    pairs = zip(texts, samples, strict=True)
    read = np.array([read_choice(final_answer(text, sample), choices_of(sample)) for text, sample in pairs])
    known = gold >= 0
    _put(scores, "choice_accuracy", index[known], (read == gold)[known], rows)
    _put(scores, "choice_read", index[known], (read >= 0)[known], rows)


def _score_box(scores: ChatScores, samples: list, predictions: list, index: np.ndarray, rows: int) -> None:
    by_source: dict[str, list[ChatSample]] = {}
    for sample in samples:
        by_source.setdefault(sample.source, []).append(sample)
    scales = {source: box_scale(members) for source, members in by_source.items()}
    overlaps, hits, read = [], [], []
    for sample, answer in zip(samples, predictions, strict=True):
        size = sample.boxes[0].size
        boxes = read_boxes(answer, scales[sample.source], size) if isinstance(answer, str) else answer
        found = _matched(boxes, np.array([box.normalised for box in sample.boxes if not box.crowd]))
        overlaps.append(found.mean() if len(found) else np.nan)
        hits.append((found >= 0.5).mean() if len(found) else np.nan)
        read.append(len(boxes) > 0)
    _put(scores, "box_accuracy_50", index, hits, rows)
    _put(scores, "box_iou", index, overlaps, rows)
    _put(scores, "box_read", index, read, rows)


def _matched(boxes: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return the IoU of each gold box [G] with the box assigned to it, 0 without one; boxes are xyxy shares."""
    found = np.zeros(len(gold))
    if not len(boxes) or not len(gold):
        return found
    pairs = np.array([(b, g) for g in range(len(gold)) for b in range(len(boxes))])
    iou, _ = box_overlaps(_centred(boxes[pairs[:, 0]]), _centred(gold[pairs[:, 1]]))
    table = iou.reshape(len(gold), len(boxes))
    rows, columns = linear_sum_assignment(-table)
    found[rows] = table[rows, columns]
    return found


def _centred(boxes: np.ndarray) -> np.ndarray:
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=1)


def _score_caption(scores: ChatScores, samples: list, texts: list, index: np.ndarray, rows: int) -> None:
    references = [references_of(sample) for sample in samples]
    sources = np.array([sample.source for sample in samples])
    for source in dict.fromkeys(sources):  # how rare a word is depends on the set
        members = np.flatnonzero(sources == source)
        found = cider_scores([texts[m] for m in members], [references[m] for m in members])
        _put(scores, "cider", index[members], found, rows)
    _put(scores, "rouge_l", index, rouge_l_scores(texts, references), rows)
    counts = bleu_counts(texts, references)
    scores.counts = np.zeros((rows, counts.shape[1]), dtype=np.int64)
    scores.counts[index] = counts


def _score_text(scores: ChatScores, samples: list, texts: list, index: np.ndarray, rows: int) -> None:
    references = [references_of(sample) for sample in samples]
    _put(scores, "text_rouge_l", index, rouge_l_scores(texts, references), rows)
    exact = [
        normalise_answer(text) in {normalise_answer(reference) for reference in accepted}
        for text, accepted in zip(texts, references, strict=True)
    ]
    _put(scores, "text_exact", index, exact, rows)


_SCORERS = {
    "vqa": _score_vqa,
    "exact": _score_exact,
    "choice": _score_choice,
    "box": _score_box,
    "caption": _score_caption,
    "text": _score_text,
}
