"""Evaluates conversations about pictures: answers written, scored by what is asked, beside baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hfvla.data.samples.chat import ChatSample
from hfvla.data.samples.chat_pictures import blank_pictures
from hfvla.errors import DataError
from hfvla.family.chat import AnswerLosses, ChatSystem
from hfvla.family.evaluation import EvaluationContext, EvaluationResult
from hfvla.metrics.bootstrap import bootstrap_intervals
from hfvla.metrics.chat.alignment import add_alignment
from hfvla.metrics.chat.baselines import CHAT_BASELINES
from hfvla.metrics.chat.figures import chat_figures
from hfvla.metrics.chat.scores import MAIN_SCORE, ChatScores, Prediction, score_answers
from hfvla.metrics.chat.tasks import Task, question_of, references_of, tasks_of
from hfvla.metrics.chat.writing import failure_note, write_answers
from hfvla.metrics.token_losses import fit_token_model, token_loss_scores

__all__ = ["evaluate_chat"]

_MAX_LOSS_ROWS = 2_000
_MAX_TRAINING_ANSWERS = 20_000


def evaluate_chat(
    system: ChatSystem, rows: Any, context: EvaluationContext, *, max_new_tokens: int = 64
) -> EvaluationResult:
    """Let a model answer conversations, and score what it wrote by what each asks for.

    At most `context.max_generate` rows, drawn by the seed, are answered; the losses of their right answers are
    computed for at most 2,000. Baselines are fitted on training rows of other groups.

    Args:
        system: how the model answers.
        rows: `datasets.Dataset` of `ChatSample` rows, or a list of them.
        context: training rows, seed, batch size, resamples, number of answers, share of rows that may fail.
        max_new_tokens: of an answer.

    Returns:
        `EvaluationResult`: scores over all rows of a task, by kind ("vqa_accuracy_by_kind/<kind>") and by source;
        `loss`, `perplexity` and those of unigrams and bigrams; retrieval both ways where the model has a space for
        it; ablation `blank_image`: the same model, shown grey.

    Raises:
        DataError: no rows, or more of them fail than the context allows.
        MissingExtraError: captions or longer answers are to be scored, and their packages are missing.
    """
    if not len(rows):
        raise DataError("there is nothing to evaluate", got="0 rows", fix="Check the evaluation source's options.")
    samples, repeated = _drawn(rows, context)
    texts, failures = write_answers(system, samples, context, max_new_tokens, "write")
    result = EvaluationResult(metrics={"n": len(samples), "failures": len(failures)})
    note = failure_note(failures, [sample.id for sample in samples], context.max_bad_fraction)
    result.notes += [note] if note else []
    answered = [number for number in range(len(samples)) if number not in failures]
    kept, answers = [samples[number] for number in answered], [texts[number] for number in answered]
    if kept:
        _score(result, system, kept, answers, context, max_new_tokens)
    if len(samples) + repeated < len(rows):
        result.notes.append(f"Answers were written for {len(samples)} of {len(rows)} rows.")
    if repeated:
        result.notes.append(f"{repeated} rows ask what another row asks of the same picture, and were left out.")
    losses = _losses(result, system, rows, context)
    aligned = add_alignment(result, system, rows, context)
    result.figures += [*chat_figures(result, kept, answers, losses), *aligned]
    result.rows += [_failed_row(samples[number], reason) for number, reason in failures.items()]
    return result


def _drawn(rows: Any, context: EvaluationContext) -> tuple[list[ChatSample], int]:
    """Return the rows to answer, and how many were passed over: a picture's five captions are one question."""
    found: dict[tuple[Any, ...], tuple[int, ChatSample]] = {}
    repeated = 0
    for place in np.random.default_rng(context.seed).permutation(len(rows)):
        if len(found) == context.max_generate:
            break
        sample = ChatSample.from_row(rows[int(place)])
        key: tuple[Any, ...] = (sample.source, sample.group, question_of(sample), references_of(sample))
        key = key if sample.group and sample.references else (sample.source, sample.id, int(place))
        repeated += key in found
        found.setdefault(key, (int(place), sample))
    return [sample for _, sample in sorted(found.values(), key=lambda pair: pair[0])], repeated


def _score(
    result: EvaluationResult,
    system: ChatSystem,
    samples: Sequence[ChatSample],
    texts: Sequence[str],
    context: EvaluationContext,
    max_new_tokens: int,
) -> None:
    """Fill in scores, baselines, ablations, intervals and rows."""
    tasks = tasks_of(samples)
    ours = score_answers(samples, tasks, texts)
    result.metrics |= ours.summary() | _grouped(ours, samples, tasks)
    # What processes share comes first: the others do not wait while one fits baselines.
    if context.ablations and any(sample.images or sample.videos for sample in samples):
        blind, lost = write_answers(system, samples, context, max_new_tokens, "blank", blank_pictures)
        if not lost:
            result.ablations["blank_image"] = score_answers(samples, tasks, blind).summary() | {"n": len(samples)}
    others = _baseline_scores(result, samples, tasks, context)
    result.baselines |= {name: scores.summary() for name, scores in others.items()}
    if context.bootstrap_samples:
        result.intervals = _intervals(ours, others, samples, context)
    result.rows = [
        _row(
            sample, task, text, {name: float(v[number]) for name, v in ours.values.items() if not np.isnan(v[number])}
        )
        for number, (sample, task, text) in enumerate(zip(samples, tasks, texts, strict=True))
    ]


def _grouped(scores: ChatScores, samples: Sequence[ChatSample], tasks: Sequence[Task]) -> dict[str, float]:
    """Return the main score of each task by kind and by source, with the number of rows."""
    found: dict[str, float] = {}
    for name, values in (("kind", [s.kind for s in samples]), ("source", [s.source for s in samples])):
        keys = np.array(values)
        if len(set(values)) < 2:
            continue
        for key in sorted(set(values) - {""}):
            members = np.flatnonzero(keys == key)
            summary = scores.rows(members).summary()
            shown = {MAIN_SCORE[tasks[int(member)]] for member in members}
            found |= {f"{metric}_by_{name}/{key}": summary[metric] for metric in sorted(shown) if metric in summary}
            found[f"n_by_{name}/{key}"] = float(len(members))
    return found


def _baseline_scores(
    result: EvaluationResult, samples: Sequence[ChatSample], tasks: Sequence[Task], context: EvaluationContext
) -> dict[str, ChatScores]:
    """Fit the baselines on training rows of other groups."""
    if context.train_rows is None or not len(context.train_rows):
        if context.processes.is_main:
            result.notes.append("No training rows, so there are no baselines that learn from them.")
        return {}
    here = {sample.group for sample in samples if sample.group}
    training = _training(context)
    used = [sample for sample in training if not sample.group or sample.group not in here]
    if len(used) < len(training):
        result.notes.append(
            f"{len(training) - len(used)} training rows are about pictures that are evaluated here; the baselines "
            "were fitted without them."
        )
    found = {}
    for name, answer in CHAT_BASELINES.items():
        predictions: list[Prediction] = answer(samples, tasks, used, context.seed)
        if any(prediction is not None for prediction in predictions):
            found[name] = score_answers(samples, tasks, predictions)
    return found


def _training(context: EvaluationContext) -> list[ChatSample]:
    rows: Any = context.train_rows
    count = min(len(rows), _MAX_TRAINING_ANSWERS)
    drawn = np.sort(np.random.default_rng(context.seed).permutation(len(rows))[:count])
    return [ChatSample.from_row(rows[int(place)]) for place in drawn]


def _intervals(
    ours: ChatScores, others: dict[str, ChatScores], samples: Sequence[ChatSample], context: EvaluationContext
) -> dict[str, tuple[float, float]]:
    """Bootstrap every system over the same resampled pictures, with paired differences."""
    systems = {"": ours, **others}
    arrays = {f"{name}|{key}": array for name, each in systems.items() for key, array in each.arrays().items()}
    groups = [sample.group or sample.id for sample in samples]

    def summaries(**sample: np.ndarray) -> dict[str, float]:
        flat: dict[str, float] = {}
        for name in systems:
            own = {key.partition("|")[2]: array for key, array in sample.items() if key.partition("|")[0] == name}
            counts = own.pop("bleu_counts", None)
            found = ChatScores(own, counts).summary()
            flat |= {f"baselines/{name}/{metric}" if name else metric: value for metric, value in found.items()}
            if name:
                differences = {metric: flat[metric] - value for metric, value in found.items() if metric in flat}
                flat |= {f"difference/{name}/{metric}": value for metric, value in differences.items()}
        return flat

    return bootstrap_intervals(summaries, arrays, groups, context.bootstrap_samples, context.seed)


def _row(sample: ChatSample, task: Task, text: str, scores: dict[str, float]) -> dict[str, Any]:
    return {
        "id": sample.id,
        "question": question_of(sample),
        "prediction": text,
        "gold": list(references_of(sample)),
        "task": task,
        "kind": sample.kind,
        "source": sample.source,
        "group": sample.group or sample.id,
        "scores": scores,
    }


def _failed_row(sample: ChatSample, reason: str) -> dict[str, Any]:
    kept = {"id": sample.id, "question": question_of(sample), "source": sample.source, "kind": sample.kind}
    return kept | {"group": sample.group or sample.id, "prediction": None, "failure": reason}


def _losses(result: EvaluationResult, system: ChatSystem, rows: Any, context: EvaluationContext) -> list[AnswerLosses]:
    """Score the right answers by their losses, beside counting words."""
    if system.answer_losses is None:
        return []
    drawn = np.sort(np.random.default_rng(context.seed).permutation(len(rows))[:_MAX_LOSS_ROWS])
    samples = [ChatSample.from_row(rows[int(place)]) for place in drawn]
    samples = [sample for sample in samples if sample.turns[-1].role == "assistant"]
    size, compute = context.batch_size, system.answer_losses
    try:
        parts = context.processes.share(
            lambda start: compute(samples[start : start + size]), range(0, len(samples), size), "losses"
        )
    except DataError as error:
        result.notes.append(f"No losses of the right answers: {error}")
        return []
    found = [losses for part in parts for losses in part]
    if not any(len(losses.losses) for losses in found):
        return []
    result.metrics |= token_loss_scores([losses.losses for losses in found])
    if context.processes.is_main and context.train_rows is not None and system.answer_ids and system.vocabulary:
        told = [sample for sample in _training(context) if sample.turns[-1].role == "assistant"]
        answers = [list(system.answer_ids(sample)) for sample in told]
        for name, order in (("unigram", 1), ("bigram", 2)):
            if any(answers):
                model = fit_token_model(answers, system.vocabulary, order, context.seed)
                scores = token_loss_scores([model.losses(losses.tokens.tolist()) for losses in found])
                result.baselines[name] = {"loss": scores["loss"], "perplexity": scores["perplexity"]}
    return found
