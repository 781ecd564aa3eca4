"""Numbers of an evaluation: answers of the model, of its baselines and under other orders, and their scores.

Shapes: N questions, L letters. Answers are indices into the row's own choices, -1 for none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hfvla.data.choices import LETTERS, rotate_choices
from hfvla.data.samples.video import parse_details
from hfvla.family import EvaluationContext
from hfvla.metrics.bootstrap import bootstrap_intervals
from hfvla.metrics.calibration import calibration_scores
from hfvla.metrics.qa import accuracy_scores, grouped_scores, position_bias
from hfvla.metrics.qa_baselines import QUESTION_BASELINES, Question
from hfvla.models.internvl_video_qa.evaluation.predicting import LetterScores

__all__ = [
    "Answers",
    "Gold",
    "Permuted",
    "all_intervals",
    "answer_scores",
    "answers_from",
    "cyclic_orders",
    "failure_reason",
    "permuted_answers",
    "text_baselines",
]

_NEEDS = ("moment", "text")
_DETAIL = re.compile(r"; (?:got|expected) .*$", re.DOTALL)


@dataclass(frozen=True)
class Gold:
    """What the labelled rows say.

    Attributes:
        answer: [N] index of the right choice.
        counts: [N] choices of each question.
        groups: the video of each question.
        by: values of each question by property (kind, language, needs); "" where unknown.
    """

    answer: np.ndarray
    counts: np.ndarray
    groups: tuple[str, ...]
    by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> Gold:
        """Read labelled rows."""
        needs = [[n for n in _NEEDS if parse_details(row["details"]).get(f"needs_{n}") == "1"] for row in rows]
        by = {
            "kind": tuple(row["kind"] for row in rows),
            "language": tuple(row["language"] for row in rows),
            "needs": tuple("+".join(names) for names in needs),
        }
        return cls(
            np.array([row["answer"] for row in rows], dtype=int),
            np.array([len(row["choices"]) for row in rows], dtype=int),
            tuple(row["group"] for row in rows),
            {name: values for name, values in by.items() if any(values)},
        )


@dataclass(frozen=True)
class Answers:
    """What one system answered.

    Attributes:
        predicted: [N] index of the choice, -1 for none.
        probabilities: [N, L] by choice, 0 where there is none; None for a system without probabilities.
    """

    predicted: np.ndarray
    probabilities: np.ndarray | None = None

    def rows(self, index: np.ndarray) -> Answers:
        """Return the answers to some rows."""
        return Answers(self.predicted[index], None if self.probabilities is None else self.probabilities[index])


@dataclass(frozen=True)
class Permuted:
    """Answers under all cyclic orders of the choices, for the rows whose choices may all move.

    Attributes:
        index: [M] these rows.
        letters: [M, L] letter answered under each order, as `position_bias` wants it.
    """

    index: np.ndarray
    letters: np.ndarray


def answers_from(scores: LetterScores) -> Answers:
    """Turn letter scores into answers in the order of the rows' own choices."""
    by_choice = scores.by_choice()
    failed, probabilities = np.isnan(by_choice).any(axis=1), np.nan_to_num(by_choice)
    return Answers(np.where(failed, -1, probabilities.argmax(axis=1)), probabilities)


def failure_reason(message: str, row: Mapping[str, Any]) -> str:
    """Return what failures are counted under: the message without its place and its values."""
    for place in (f"{row['video']}: ", f"{row['id']}: "):
        message = message.removeprefix(place)
    return _DETAIL.sub("", message).split(". ")[0].rstrip(".")


def answer_scores(gold: Gold, answers: Answers) -> dict[str, float]:
    """Return accuracy beside chance, calibration where there are probabilities, and scores by group."""
    scores = {"n": len(gold.answer), **accuracy_scores(gold.answer, answers.predicted, gold.counts)}
    answered = answers.predicted >= 0
    if answers.probabilities is not None and answered.any():
        confidence = answers.probabilities.max(axis=1)[answered]
        scores |= calibration_scores(confidence, (answers.predicted == gold.answer)[answered])
    return scores | grouped_scores(gold.answer, answers.predicted, gold.counts, gold.by)


def cyclic_orders(row: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Return all cyclic orders of a row's choices, its own first; that alone where a choice speaks of its place."""
    count = len(row["choices"])
    own = tuple(range(count))
    turned = [rotate_choices(row["choices"], -1, steps).order for steps in range(1, min(count, len(LETTERS)))]
    return [own, *turned] if turned and all(a != b for a, b in zip(turned[0], own, strict=True)) else [own]


def permuted_answers(passes: Sequence[LetterScores], index: np.ndarray) -> Permuted:
    """Collect what was answered under the cyclic orders of the choices.

    Left out are rows that failed, and rows whose choices cannot all move.

    Args:
        passes: scores of all rows under their first order, their second ...
        index: rows that may be used.
    """
    letters = np.full((len(index), len(LETTERS)), -1)
    for steps, scores in enumerate(passes):
        letters[:, steps] = scores.predictions[index]
    failed = {number for scores in passes for number in scores.failures}
    free = [
        place for place, row in enumerate(index) if len(passes) > 1 and passes[1].orders[row] and row not in failed
    ]
    return Permuted(np.array(free, dtype=int), letters[free])


def text_baselines(
    rows: Sequence[Mapping[str, Any]], train_rows: Any, seed: int
) -> tuple[dict[str, Answers], list[str]]:
    """Fit the baselines that see no clip on labelled training rows of other videos, and apply them.

    Args:
        rows: N labelled rows to answer.
        train_rows: dataset or None.
        seed: handed to the fits.

    Returns:
        `tuple`: answers by baseline, and notes on what they were fitted on.
    """
    asked, evaluated = [_question(row) for row in rows], {row["group"] for row in rows}
    known = [row for row in train_rows or () if row["answer"] >= 0]
    used = [row for row in known if row["group"] not in evaluated]
    notes = []
    if len(used) < len(known):
        notes.append(
            f"{len(known) - len(used)} training questions are on videos that are evaluated here: the model may have "
            "seen these videos; the baselines were fitted without them."
        )
    answers = {}
    for name, fit in QUESTION_BASELINES.items():
        enough = len({row["group"] for row in used}) >= 2
        if not enough and name != "longest_choice":
            notes.append(f"Baseline {name} left out: fewer than two training videos.")
            continue
        questions, gold = [_question(row) for row in used], [row["answer"] for row in used]
        answers[name] = Answers(fit(questions, gold, [row["group"] for row in used], seed)(asked))
    if used:
        notes.append(f"The baselines that read text were fitted on {len(used)} training questions.")
    return answers, notes


def _question(row: Mapping[str, Any]) -> Question:
    return Question(row["question"], tuple(row["choices"]))


def all_intervals(
    gold: Gold,
    systems: Mapping[str, Answers],
    context: EvaluationContext,
    permuted: Permuted | None = None,
    supported: Answers | None = None,
) -> dict[str, tuple[float, float]]:
    """Bootstrap the accuracy of every system over the same resampled videos.

    Args:
        gold: of N rows.
        systems: answers by name; the model itself is "".
        context: seed and number of resamples.
        permuted: answers under other orders, for the interval of the position bias.
        supported: answers with support frames, for the interval of `accuracy_with_support`.

    Returns:
        `dict`: (low, high) by metric for the model, "baselines/<name>/<metric>" for the others, and
        "difference/<name>/<metric>" for the model minus the other, paired.
    """
    right = {f"right_{name}": answers.predicted == gold.answer for name, answers in systems.items()}
    members = {
        f"by_{name}/{value}": np.array([found == value for found in values])
        for name, values in gold.by.items()
        for value in sorted(set(values) - {""})
    }

    def scores(**sample: np.ndarray) -> dict[str, float]:
        flat = {}
        for suffix in ("", *members):
            chosen = sample[suffix] if suffix else np.ones(len(sample["right_"]), dtype=bool)
            metric = f"accuracy_{suffix}" if suffix else "accuracy"
            if not chosen.any():
                continue
            ours = float(sample["right_"][chosen].mean())
            flat[metric] = ours
            for name in systems:
                if name:
                    theirs = float(sample[f"right_{name}"][chosen].mean())
                    flat |= {f"baselines/{name}/{metric}": theirs, f"difference/{name}/{metric}": ours - theirs}
        return flat

    samples, seed = context.bootstrap_samples, context.seed
    found = bootstrap_intervals(scores, {**right, **members}, gold.groups, samples, seed)
    if not found:  # no resamples are wanted
        return {}
    found["accuracy_without_support"] = found["accuracy"]
    if supported is not None:
        with_support = bootstrap_intervals(
            lambda right: {"accuracy_with_support": float(right.mean())},
            {"right": supported.predicted == gold.answer},
            gold.groups,
            samples,
            seed,
        )
        found |= with_support
    if permuted is not None and len(permuted.index):
        chosen = permuted.index
        arrays = {"gold": gold.answer[chosen], "letters": permuted.letters, "counts": gold.counts[chosen]}
        groups = [gold.groups[row] for row in chosen]
        bias = bootstrap_intervals(position_bias, arrays, groups, samples, seed)
        found |= {name: bounds for name, bounds in bias.items() if "/" not in name}
    return found
