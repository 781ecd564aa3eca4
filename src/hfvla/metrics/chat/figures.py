"""Plots of a chat evaluation as data; `hfvla.evaluation.plots` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hfvla.data.samples.chat import ChatSample
from hfvla.family.chat import AnswerLosses
from hfvla.family.evaluation import EvaluationResult, Figure
from hfvla.metrics.chat.alignment import thumbnail
from hfvla.metrics.chat.scores import MAIN_SCORE
from hfvla.metrics.chat.tasks import Task, question_of, references_of, tasks_of
from hfvla.metrics.token_losses import perplexity_by_position

__all__ = ["chat_figures"]

_MAX_EXAMPLES = 8
_MAX_KINDS = 16
_MAX_TOKENS = 24
_SHARES = (*(name for name in MAIN_SCORE.values() if name != "cider"), "rouge_l")


def chat_figures(
    result: EvaluationResult, samples: Sequence[ChatSample], texts: Sequence[str], losses: Sequence[AnswerLosses]
) -> list[Figure]:
    """Return scores beside baselines, scores by kind, lengths, perplexity by position, token chances and examples.

    Args:
        result: with metrics, baselines, ablations and intervals.
        samples: N that were answered.
        texts: their answers.
        losses: of right answers, may be empty.
    """
    tasks = tasks_of(samples)
    found = [
        _scores(result, _SHARES, "answer_scores", "Answers against the baselines", {"ylim": [0, 1]}),
        _scores(result, ("cider",), "caption_scores", "Captions against the baselines", {}),
        _by_kind(result),
        _lengths(samples, texts),
    ]
    if losses:
        found += [_by_position(losses), _token_chances(losses)]
    found.append(_examples(result, samples, texts, tasks))
    return [figure for figure in found if figure is not None]


def _scores(
    result: EvaluationResult, names: Sequence[str], file: str, title: str, more: dict[str, Any]
) -> Figure | None:
    metrics = [name for name in names if name in result.metrics]
    if not metrics:
        return None
    systems = {"model": result.metrics, **result.baselines}
    if "blank_image" in result.ablations:
        systems["model, blank picture"] = result.ablations["blank_image"]
    systems = {name: scores for name, scores in systems.items() if any(metric in scores for metric in metrics)}
    prefixes = {name: "" if name == "model" else f"baselines/{name}/" for name in systems}
    data = {
        "groups": ["CIDEr" if metric == "cider" else metric.replace("_", " ") for metric in metrics],
        "series": {name: [scores.get(metric) for metric in metrics] for name, scores in systems.items()},
        "errors": {name: [result.intervals.get(prefixes[name] + m) for m in metrics] for name in systems},
        "ylabel": "score",
        **more,
    }
    caption = "Whiskers: 95 % bootstrap intervals over pictures. Blank: the same model, shown grey pictures."
    return Figure(file, "bars", title, data, caption)


def _by_kind(result: EvaluationResult) -> Figure | None:
    series: dict[str, dict[str, float]] = {}
    for key, value in result.metrics.items():
        part, _, kind = key.partition("/")
        metric, by, _ = part.rpartition("_by_kind")
        if by and metric in _SHARES:
            series.setdefault(metric, {})[kind] = value
    kinds = sorted({kind for values in series.values() for kind in values},
                   key=lambda kind: -result.metrics.get(f"n_by_kind/{kind}", 0))[:_MAX_KINDS]  # fmt: skip
    if len(kinds) < 2:
        return None
    data = {
        "groups": [f"{kind}\n(n={result.metrics[f'n_by_kind/{kind}']:.0f})" for kind in kinds],
        "series": {name.replace("_", " "): [values.get(k) for k in kinds] for name, values in series.items()},
        "ylabel": "score",
        "ylim": [0, 1],
    }
    return Figure("scores_by_kind", "bars", "By kind of question", data, "The most frequent kinds, n: rows.")


def _lengths(samples: Sequence[ChatSample], texts: Sequence[str]) -> Figure | None:
    if not samples:
        return None
    written = [len(text.split()) for text in texts]
    right = [len(reference.split()) for sample in samples for reference in references_of(sample)[:1]]
    edges = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128]
    names = [
        str(low) if high == low + 1 else f"{low}–{high - 1}" for low, high in zip(edges, edges[1:], strict=False)
    ] + [f"{edges[-1]}+"]

    def shares(lengths: list[int]) -> list[float]:
        counts = np.bincount(np.searchsorted(edges, lengths, side="right") - 1, minlength=len(edges))
        return (counts / max(len(lengths), 1)).tolist()

    data: dict[str, Any] = {"groups": names, "series": {"written": shares(written), "right answers": shares(right)}}
    caption = "Share of answers by their number of words."
    return Figure("answer_lengths", "bars", "Length of the answers", data | {"ylabel": "share"}, caption)


def _by_position(losses: Sequence[AnswerLosses]) -> Figure | None:
    values, counts = perplexity_by_position([each.losses for each in losses])
    if not len(values):
        return None
    places = list(range(1, len(values) + 1))
    panels = [
        {"title": "Perplexity", "xlabel": "token of the answer", "ylabel": "perplexity",
         "series": {"model": {"x": places, "y": values.tolist()}}},
        {"title": "Answers", "xlabel": "token of the answer", "ylabel": "answers that are as long",
         "series": {"answers": {"x": places, "y": counts.tolist()}}},
    ]  # fmt: skip
    caption = "How surprised the model is by the first, second ... token of the right answers."
    return Figure("perplexity_by_position", "curves", "Perplexity by position", {"panels": panels}, caption)


def _token_chances(losses: Sequence[AnswerLosses]) -> Figure | None:
    examples: list[dict[str, Any]] = [
        {
            "title": "".join(each.texts).strip()[:200],
            "badge": f"perplexity {np.exp(each.losses.mean()):.2f}",
            "image": None,
            "bars": {
                f"{place} {text}": float(np.exp(-loss))
                for place, (text, loss) in enumerate(zip(each.texts, each.losses, strict=True), 1)
                if place <= _MAX_TOKENS
            },
            "facts": [],
            "text": "",
        }
        for each in [found for found in losses if len(found.texts) and len(found.losses)][: _MAX_EXAMPLES // 2]
    ]
    if not examples:
        return None
    caption = "Probability that the model gives to each token of the right answer."
    return Figure("token_probabilities", "text_examples", "Token probabilities", {"examples": examples}, caption)


def _examples(
    result: EvaluationResult, samples: Sequence[ChatSample], texts: Sequence[str], tasks: Sequence[Task]
) -> Figure | None:
    """Show up to eight answers: good and bad ones in turn, as far as there are both."""
    if not samples:
        return None
    mains = [row["scores"].get(MAIN_SCORE[task], 0.0) for row, task in zip(result.rows, tasks, strict=True)]
    good = [number for number, score in enumerate(mains) if score >= 0.5]
    bad = [number for number, score in enumerate(mains) if score < 0.5]
    half = _MAX_EXAMPLES // 2
    take = max(half, _MAX_EXAMPLES - len(bad))
    chosen = sorted([*good[:take], *bad[: _MAX_EXAMPLES - min(take, len(good))]])
    examples: list[dict[str, Any]] = []
    for number in chosen:
        sample = samples[number]
        facts = [["Right", " | ".join(dict.fromkeys(references_of(sample)))[:300] or "unknown"]]
        facts += [[name.replace("_", " "), f"{score:.2f}"] for name, score in result.rows[number]["scores"].items()]
        examples.append(
            {
                "title": question_of(sample) or sample.id,
                "badge": f"{MAIN_SCORE[tasks[number]].replace('_', ' ')} {mains[number]:.2f}",
                "image": thumbnail(sample),
                "bars": {},
                "facts": facts,
                "text": texts[number],
            }
        )
    caption = "Drawn by the seed from the rows with answers, good and bad ones in equal number."
    return Figure("answer_examples", "text_examples", "Answers", {"examples": examples}, caption)
