"""Plots of an evaluation as data; `hfvla.evaluation.plots` draws them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hfvla.data.choices import LETTERS
from hfvla.family import EvaluationResult, Figure
from hfvla.metrics.calibration import reliability_bins
from hfvla.metrics.qa import confusion_counts
from hfvla.metrics.report_figures import mistakes_figure, roc_pr_figure
from hfvla.models.internvl_video_qa.evaluation.scores import Answers, Gold

__all__ = ["answer_figures", "answer_mistakes"]

_TITLES = {"kind": "kind of question", "language": "language", "needs": "what the question needs",
           "choices": "number of choices"}  # fmt: skip


def confusion_figure(gold: Gold, answers: Answers) -> Figure:
    """Right letter against answered letter."""
    matrix = confusion_counts(gold.answer, answers.predicted, gold.counts)
    used = max(gold.counts)
    data = {
        "matrix": [[*row[:used], row[-1]] for row in matrix[:used].tolist()],
        "rows": list(LETTERS[:used]),
        "columns": [*LETTERS[:used], "no answer"],
        "row_title": "Right letter",
        "column_title": "Answered letter",
    }
    caption = "Counts of questions, without support frames. A column darker than the others is a liked letter."
    return Figure("confusion", "confusion", "Confusion: right letter against answer", data, caption)


def reliability_figure(gold: Gold, answers: Answers, metrics: Mapping[str, float]) -> Figure:
    """Confidence of the answer against how often it is right."""
    answered = answers.predicted >= 0
    assert answers.probabilities is not None
    confidence = answers.probabilities.max(axis=1)[answered]
    bins = reliability_bins(confidence, (answers.predicted == gold.answer)[answered])
    data = {"bins": {name: values.tolist() for name, values in bins.items()}, "ece": metrics["ece"]}
    data["mce"] = metrics["mce"]
    caption = "Bars on the diagonal mean that a confidence of 0.8 is right 8 times in 10. Counts stand below."
    return Figure("reliability", "reliability", "Reliability of the answer's confidence", data, caption)


def accuracy_figure(result: EvaluationResult, name: str) -> Figure:
    """Accuracy by a property, the model with and without support frames beside every baseline and chance."""
    prefix = f"accuracy_by_{name}/"
    values = [key.removeprefix(prefix) for key in result.metrics if key.startswith(prefix)]
    systems = {"model": result.metrics, **result.baselines}
    if "with_support_frames" in result.ablations:
        systems = {"model": result.metrics, "with support frames": result.ablations["with_support_frames"]}
        systems |= result.baselines
    series = {system: [scores.get(prefix + value) for value in values] for system, scores in systems.items()}
    series["chance"] = [result.metrics[f"chance_by_{name}/{value}"] for value in values]
    errors = {}
    for system in systems:
        place = {"model": "", "with support frames": None}.get(system, f"baselines/{system}/")
        if place is not None:
            errors[system] = [result.intervals.get(f"{place}{prefix}{value}") for value in values]
    groups = [f"{value}\n(n={result.metrics[f'n_by_{name}/{value}']:.0f})" for value in values]
    data = {"groups": groups, "series": {label.replace("_", " "): found for label, found in series.items()},
            "errors": {label.replace("_", " "): found for label, found in errors.items()},
            "ylabel": "accuracy", "ylim": [0, 1]}  # fmt: skip
    caption = "Model: without support frames, as in a test. Whiskers: 95 % bootstrap intervals over videos."
    return Figure(f"accuracy_by_{name}", "bars", f"Accuracy by {_TITLES.get(name, name)}", data, caption)


def letters_figure(metrics: Mapping[str, float]) -> Figure:
    """How often each letter is answered and right, and the accuracy where the right choice stands at it."""
    letters = [letter for letter in LETTERS if f"share_of_right/{letter}" in metrics]
    keys = {"share of answers": "share_of_answers", "share of right choices": "share_of_right",
            "accuracy with the right choice here": "accuracy_at"}  # fmt: skip
    series = {label: [metrics.get(f"{key}/{letter}") for letter in letters] for label, key in keys.items()}
    series = {label: values for label, values in series.items() if any(value is not None for value in values)}
    caption = "Shares among the questions that have the letter; accuracy over all cyclic orders of the choices."
    data = {"groups": letters, "series": series, "ylabel": "share", "ylim": [0, 1]}
    return Figure("letters", "bars", "Where the answers lie", data, caption)


def answer_figures(gold: Gold, answers: Answers, result: EvaluationResult) -> list[Figure]:
    """Return the figures of labelled rows.

    Args:
        gold: of the rows.
        answers: the model's, without support frames.
        result: scores, baselines, ablations and intervals so far.
    """
    figures = [accuracy_figure(result, name) for name in (*gold.by, "choices")]
    figures += [confusion_figure(gold, answers), letters_figure(result.metrics)]
    if "ece" in result.metrics:
        figures.append(reliability_figure(gold, answers, result.metrics))
    curves = _choice_curves(gold, answers)
    return figures + ([curves] if curves is not None else [])


def _choice_curves(gold: Gold, answers: Answers) -> Figure | None:
    """Return ROC and precision-recall of every choice of every question: is it the right one?"""
    if answers.probabilities is None:
        return None
    answered = np.flatnonzero(answers.predicted >= 0)
    places = [(question, choice) for question in answered for choice in range(gold.counts[question])]
    if not places:
        return None
    right = np.array([[gold.answer[question] == choice] for question, choice in places])
    scores = np.array([[answers.probabilities[place]] for place in places])
    return roc_pr_figure(right, scores, ["a choice is right"], "ROC and precision-recall of the choices")


def answer_mistakes(
    rows: Sequence[Mapping[str, Any]], gold: Gold, answers: Answers, picture: Callable[[int], str | None]
) -> Figure | None:
    """Return the questions that were answered wrongly with the highest confidence.

    Args:
        rows: N questions with an answer.
        gold: of the rows.
        answers: the model's.
        picture: the n-th row's clip as a data URI.
    """
    assert answers.probabilities is not None
    wrong = (answers.predicted != gold.answer) & (answers.predicted >= 0)
    sure = answers.probabilities.max(axis=1)

    def describe(number: int) -> dict[str, Any]:
        row, shares = rows[number], answers.probabilities[number]
        letters = LETTERS[: len(row["choices"])]
        facts = [[letter, choice] for letter, choice in zip(letters, row["choices"], strict=True)]
        facts += [["Right", LETTERS[int(gold.answer[number])]], ["Answered", LETTERS[int(answers.predicted[number])]]]
        bars = {letter: float(share) for letter, share in zip(letters, shares, strict=False)}
        return {"title": row["question"], "image": picture(number), "facts": facts, "bars": bars}

    return mistakes_figure(np.where(wrong, sure, 0.0), describe, "the confidence of the wrong answer")
