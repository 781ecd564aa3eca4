"""Judges answers as the benchmarks' own scripts do, without a language model as judge.

Shapes: N questions as they are asked; a question under several orders of its choices is asked several times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hfvla.data.samples.chat import ChatSample
from hfvla.evaluation.benchmarks.catalog import Benchmark
from hfvla.metrics.chat.reading import read_choice
from hfvla.metrics.chat.tasks import choices_of, gold_choice
from hfvla.metrics.vqa import normalise_answer, vqa_accuracy

__all__ = ["anls", "benchmark_scores", "chance", "judge", "read_yes_no", "relaxed_match"]

_RELAXED = 0.05
_ANLS_LEAST = 0.5
_PERCEPTION = (
    "OCR", "artwork", "celebrity", "color", "count", "existence", "landmark", "position", "posters", "scene"
)  # fmt: skip
_FORMULAS = "Handwritten Mathematical Expression Recognition"  # of OCRBench, where blanks do not count
_COGNITION = ("code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation")


def read_yes_no(text: str) -> str:
    """Return "yes", "no", or "" where the answer says neither or both; its first word decides."""
    words = re.findall(r"[a-z]+", text.lower())
    if words and words[0] in ("yes", "no"):
        return words[0]
    found = {word for word in words if word in ("yes", "no")}
    return found.pop() if len(found) == 1 else ""


def relaxed_match(answer: str, prediction: str) -> bool:
    """Tell whether a number is within 5 % of the right one, or a text is equal but for letter case (ChartQA)."""

    def number(text: str) -> float | None:
        try:
            return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
        except ValueError:
            return None

    said, right = number(prediction.strip()), number(answer.strip())
    if said is not None and right:
        return abs(said - right) / abs(right) <= _RELAXED
    return prediction.strip().lower() == answer.strip().lower()


def anls(answers: Sequence[str], prediction: str) -> float:
    """Return 1 minus the normalised edit distance to the nearest answer, 0 below 0.5 (DocVQA)."""
    said = " ".join(prediction.lower().split())
    best = 0.0
    for answer in answers:
        right = " ".join(answer.lower().split())
        longest = max(len(said), len(right))
        best = max(best, 1 - _distance(said, right) / longest if longest else 1.0)
    return best if best >= _ANLS_LEAST else 0.0


def _distance(first: str, second: str) -> int:
    """Return the edit distance of two texts."""
    row = list(range(len(second) + 1))
    for number, letter in enumerate(first, 1):
        above, row[0] = row[0], number
        for place, other in enumerate(second, 1):
            above, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, above + (letter != other))
    return row[-1]


def judge(benchmark: Benchmark, sample: ChatSample, text: str) -> float:
    """Return the score of one answer, 0..1; NaN where the right answer is not published."""
    if benchmark.scorer == "choice" and choices_of(sample):
        gold = gold_choice(sample)
        return float(read_choice(text, choices_of(sample)) == gold) if gold >= 0 else np.nan
    answers = sample.references
    if not answers:
        return np.nan
    if benchmark.scorer == "choice":  # an open question among the others
        return float(normalise_answer(text) in map(normalise_answer, answers))
    if benchmark.scorer == "yes_no":
        return float(read_yes_no(text) == _yes_no_gold(answers[0]))
    if benchmark.scorer == "vqa":
        return vqa_accuracy(text, answers, always_normalise=True) if len(answers) > 1 else float(text in answers)
    if benchmark.scorer == "relaxed":
        return float(any(relaxed_match(answer, text) for answer in answers))
    if benchmark.scorer == "anls":
        return anls(answers, text)
    if sample.kind == _FORMULAS:
        return float(any("".join(answer.split()) in "".join(text.split()) for answer in answers))
    said = " ".join(text.lower().split())
    return float(any(" ".join(answer.lower().split()) in said for answer in answers))


def _yes_no_gold(answer: str) -> str:
    return {"1": "yes", "0": "no"}.get(answer.strip(), answer.strip().lower())


def chance(benchmark: Benchmark, samples: Sequence[ChatSample]) -> float | None:
    """Return what guessing reaches, or None where nobody can guess."""
    if benchmark.scorer == "choice":
        return float(np.mean([1 / len(choices_of(sample)) if choices_of(sample) else 0.0 for sample in samples]))
    return 0.5 if benchmark.scorer == "yes_no" else None


def benchmark_scores(
    benchmark: Benchmark, samples: Sequence[ChatSample], texts: Sequence[str], scores: np.ndarray
) -> dict[str, float]:
    """Return the scores that a benchmark's own script reports, as shares (0..1) but for MME's points.

    Args:
        benchmark: which.
        samples: N questions as asked; copies under other orders share `group`.
        texts: N answers.
        scores: [N] of `judge`, none NaN.

    Returns:
        `dict`: `accuracy` (of the first order of each question, where there are several), by category and by split;
        what else
        the benchmark has: `circular_accuracy`; MME's `perception` (of 2,000), `cognition` (of 800) and points by
        category; POPE's `precision`, `recall`, `f1`, `yes_share`; HallusionBench's `question_accuracy` and
        `figure_accuracy`.
    """
    if benchmark.name == "POPE":
        samples, texts, scores = _each_category(samples, texts, scores)
    first = _first_of_group(benchmark, samples)
    found = {"n": float(len(first)), "accuracy": float(scores[first].mean())}
    for name, values in (("category", [s.kind for s in samples]), ("split", [_split(s) for s in samples])):
        told = {values[number] for number in first} - {""}
        for value in sorted(told) if name == "category" or len(told) > 1 else ():
            members = [number for number in first if values[number] == value]
            found[f"accuracy_by_{name}/{value}"] = float(scores[members].mean())
            found[f"n_by_{name}/{value}"] = float(len(members))
    own = {"MME": _mme, "POPE": _pope, "HallusionBench": _hallusion}.get(benchmark.name)
    if own is not None:
        found |= own(samples, texts, scores)
    if benchmark.circular:
        found["circular_accuracy"] = float(np.mean(_all_of(samples, scores, lambda sample: sample.group)))
        found["asked"] = float(len(samples))
    if benchmark.scorer == "yes_no":
        found["answered"] = float(np.mean([read_yes_no(text) != "" for text in texts]))
    elif benchmark.scorer == "choice":
        read = [read_choice(t, choices_of(s)) >= 0 for t, s in zip(texts, samples, strict=True) if choices_of(s)]
        found |= {"answered": float(np.mean(read))} if read else {}
    return found


def _split(sample: ChatSample) -> str:
    return sample.details.get("split", "")


def _each_category(
    samples: Sequence[ChatSample], texts: Sequence[str], scores: np.ndarray
) -> tuple[list[ChatSample], list[str], np.ndarray]:
    """Count a question of several categories ("popular,random") once in each, as POPE's own script does."""
    pairs = [(n, kind.strip()) for n, sample in enumerate(samples) for kind in sample.kind.split(",")]
    chosen = [n for n, _ in pairs]
    return [replace(samples[n], kind=kind) for n, kind in pairs], [texts[n] for n in chosen], scores[chosen]


def _first_of_group(benchmark: Benchmark, samples: Sequence[ChatSample]) -> list[int]:
    if not benchmark.circular:
        return list(range(len(samples)))
    seen: dict[str, int] = {}
    for number, sample in enumerate(samples):
        seen.setdefault(sample.group, number)
    return list(seen.values())


def _all_of(samples: Sequence[ChatSample], scores: np.ndarray, key: Callable[[ChatSample], Any]) -> list[bool]:
    """Return for each group of questions whether all of it is right."""
    right: dict[Any, bool] = {}
    for sample, score in zip(samples, scores, strict=True):
        right[key(sample)] = right.get(key(sample), True) and bool(score)
    return list(right.values())


def _mme(samples: Sequence[ChatSample], texts: Sequence[str], scores: np.ndarray) -> dict[str, float]:
    """Points of a category: 100 x share of questions right + 100 x share of pictures with both right."""
    points: dict[str, float] = {}
    for kind in dict.fromkeys(sample.kind for sample in samples):
        members = [number for number, sample in enumerate(samples) if sample.kind == kind]
        chosen = [samples[number] for number in members]
        both = _all_of(chosen, scores[members], lambda sample: sample.details.get("image_path") or sample.group)
        points[kind] = 100 * float(scores[members].mean()) + 100 * float(np.mean(both))
    found = {f"points/{kind}": value for kind, value in points.items()}
    for name, kinds in (("perception", _PERCEPTION), ("cognition", _COGNITION)):
        if set(kinds) <= set(points):  # a sum over fewer categories is another number
            found[name] = sum(points[kind] for kind in kinds)
    return found


def _pope(samples: Sequence[ChatSample], texts: Sequence[str], scores: np.ndarray) -> dict[str, float]:
    said = np.array([read_yes_no(text) == "yes" for text in texts])
    right = np.array([_yes_no_gold(sample.references[0]) == "yes" for sample in samples])
    hits = int((said & right).sum())
    precision = hits / said.sum() if said.any() else 0.0
    recall = hits / right.sum() if right.any() else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return {"f1": float(f1), "precision": float(precision), "recall": float(recall), "yes_share": float(said.mean())}


def _hallusion(samples: Sequence[ChatSample], texts: Sequence[str], scores: np.ndarray) -> dict[str, float]:
    def place(sample: ChatSample, name: str, part: int) -> str:
        pieces = sample.id.split("_")  # VLMEvalKit's indices end in set, figure and question
        found: Mapping[str, str] = sample.details
        return found.get(name) or (pieces[part] if len(pieces) > 5 else sample.id)

    def key(kind: str, part: int) -> Callable[[ChatSample], tuple[str, str, str]]:
        return lambda s: (s.details.get("l2-category", s.kind), place(s, "set_id", 3), place(s, kind, part))

    return {
        "figure_accuracy": float(np.mean(_all_of(samples, scores, key("figure_id", 4)))),
        "question_accuracy": float(np.mean(_all_of(samples, scores, key("question_id", 5)))),
    }
