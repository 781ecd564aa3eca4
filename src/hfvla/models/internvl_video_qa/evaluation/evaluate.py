"""Evaluation and calibration of InternVL for video questions: `evaluate` and `calibrate` of the family contract."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hfvla.data.choices import LETTERS
from hfvla.data.pictures import data_uri
from hfvla.errors import DataError
from hfvla.family import EvaluationContext, EvaluationResult, Figure
from hfvla.metrics.qa import (
    answer_shares,
    fit_letter_temperature,
    letter_nll,
    position_bias,
)
from hfvla.models.internvl_video_qa.evaluation.figures import answer_figures, answer_mistakes
from hfvla.models.internvl_video_qa.evaluation.predicting import (
    LetterScores,
    measure_latency,
    predict_letters,
    predict_orders,
)
from hfvla.models.internvl_video_qa.evaluation.scores import (
    Answers,
    Gold,
    Permuted,
    all_intervals,
    answer_scores,
    answers_from,
    cyclic_orders,
    failure_reason,
    permuted_answers,
    text_baselines,
)
from hfvla.models.internvl_video_qa.frames import FrameMode

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.internvl_video_qa.modeling_internvl_video_qa import InternVLForVideoQA

__all__ = ["calibrate", "evaluate"]

logger = logging.getLogger(__name__)

_ENOUGH_ROWS = 30  # below, calibration is drawn towards temperature 1
_MODE: FrameMode = "segments"  # a test names no support frames, so the headline score does without them


def evaluate(
    model: InternVLForVideoQA, processor: ProcessorMixin, rows: Any, context: EvaluationContext
) -> EvaluationResult:
    """Answer every question, and score those that have a right answer.

    The headline `accuracy` is without support frames, as in a test; with them it is `accuracy_with_support`. A
    question that could not be answered counts as wrong and is named.

    Args:
        model: `InternVLForVideoQA`.
        processor: its processor.
        rows: `datasets.Dataset` of `VideoQuestion` rows; rows without an answer are predicted only.
        context: training rows for baselines, seed, batch size, resamples, and the share of rows that may fail.

    Raises:
        DataError: no rows, or too many that cannot be answered.
    """
    rows = [dict(row) for row in rows]
    if not rows:
        raise DataError("there is nothing to evaluate", got="0 rows", fix="Check the evaluation source's options.")
    labelled = np.array([row["answer"] >= 0 for row in rows])
    permute = context.ablations
    orders = [
        cyclic_orders(row) if permute and row["answer"] >= 0 else [tuple(range(len(row["choices"])))] for row in rows
    ]
    passes = predict_orders(model, processor, rows, context, mode=_MODE, orders=orders)
    scores = passes[0]
    answers = answers_from(scores)
    result = EvaluationResult(metrics={"n": int(labelled.sum()) or len(rows)})
    if labelled.any():
        _score(result, model, processor, rows, passes, answers, labelled, context)
    if not labelled.all():
        result.notes.append(
            f"{(~labelled).sum()} of {len(rows)} questions have no right answer: predicted, not scored."
        )
    result.metrics |= _failures(result, rows, scores.failures, context)
    readable = [row for number, row in enumerate(rows) if number not in scores.failures]
    latency, note = measure_latency(model, processor, readable, context, _MODE)
    result.metrics |= latency
    result.notes.append(note)
    result.rows = [_prediction_row(row, number, answers, scores) for number, row in enumerate(rows)]
    return result


def _score(
    result: EvaluationResult,
    model: InternVLForVideoQA,
    processor: ProcessorMixin,
    rows: Sequence[Mapping[str, Any]],
    passes: Sequence[LetterScores],
    answers: Answers,
    labelled: np.ndarray,
    context: EvaluationContext,
) -> None:
    """Fill in scores, baselines, ablations, intervals and figures of labelled rows."""
    index = np.flatnonzero(labelled)
    known = [rows[int(number)] for number in index]
    gold, ours = Gold.of(known), answers.rows(index)
    result.metrics |= answer_scores(gold, ours)
    # What processes share comes first: the others do not wait while one fits baselines.
    single = _asked(model, processor, known, context, "middle")
    with_support = any(len(row["support_frames"]) for row in known)
    supported = _asked(model, processor, known, context, "support") if with_support else None
    blind = _asked(model, processor, known, context, "none") if context.ablations else None
    baselines, notes = text_baselines(known, context.train_rows, context.seed)
    baselines["single_frame"] = single
    result.notes += notes
    result.notes.append("Single frame: this model, shown the middle frame of the clip only.")
    result.baselines = {name: answer_scores(gold, found) for name, found in baselines.items()}
    result.metrics["accuracy_without_support"] = result.metrics["accuracy"]
    if supported is not None:
        result.ablations["with_support_frames"] = answer_scores(gold, supported)
        result.metrics["accuracy_with_support"] = result.ablations["with_support_frames"]["accuracy"]
    else:
        result.notes.append("No row has support frames, so there is no score with them.")
    permuted: Permuted | None = None
    if blind is not None:
        result.ablations["no_frames"] = answer_scores(gold, blind)
        permuted = permuted_answers(passes, index)
        if len(permuted.index):
            chosen = permuted.index
            result.metrics |= position_bias(gold.answer[chosen], permuted.letters, gold.counts[chosen])
            result.notes.append(
                "Position bias: 0 by construction, each choice is scored by its own text alone."
                if model.config.answer_by == "words"
                else f"Position bias: {len(chosen)} questions, each under all cyclic orders of its choices."
            )
    for name, values in (("answers", ours.predicted), ("right", gold.answer)):
        shares = answer_shares(values, gold.counts)
        result.metrics |= {f"share_of_{name}/{letter}": share for letter, share in shares.items()}
    result.intervals = all_intervals(gold, {"": ours, **baselines}, context, permuted, supported)
    calibration = model.config.calibration["temperature"]
    result.notes.append(f"Probabilities at temperature {calibration:.3f}, which comes from the checkpoint.")
    result.figures += answer_figures(gold, ours, result)
    result.figures += _mistakes(processor, known, gold, ours) if context.processes.is_main else []


def _mistakes(
    processor: ProcessorMixin, rows: Sequence[Mapping[str, Any]], gold: Gold, answers: Answers
) -> list[Figure]:
    found = answer_mistakes(rows, gold, answers, partial(_picture, processor, rows))
    return [found] if found is not None else []


def _picture(processor: ProcessorMixin, rows: Sequence[Mapping[str, Any]], number: int) -> str | None:
    """Return the middle frame of a row's clip as a data URI; None where it has none."""
    row = rows[number]
    try:
        clip = processor.read_clip(row["video"], row["support_frames"], mode="middle", where=str(row["id"]))
    except DataError as error:  # it was read a moment ago; a picture is not worth the evaluation
        logger.warning("no picture of %s in the report: %s", row["id"], error)
        return None
    return data_uri(clip.pixels[0]) if len(clip.pixels) else None


def _asked(
    model: InternVLForVideoQA,
    processor: ProcessorMixin,
    rows: Sequence[Mapping[str, Any]],
    context: EvaluationContext,
    mode: FrameMode,
) -> Answers:
    return answers_from(predict_letters(model, processor, rows, context, mode=mode))


def _failures(
    result: EvaluationResult, rows: Sequence[Mapping[str, Any]], failed: Mapping[int, str], context: EvaluationContext
) -> dict[str, float]:
    """Count failures by reason, name the first of each, and refuse to go on past the limit."""
    reasons = {number: failure_reason(message, rows[number]) for number, message in failed.items()}
    counts = Counter(reasons.values())
    for reason, count in counts.items():
        first = min(number for number, found in reasons.items() if found == reason)
        text = (
            f"{count} of {len(rows)} questions have no answer ({reason}); first: {rows[first]['id']}: {failed[first]}"
        )
        logger.warning("%s", text)
        result.notes.append(text)
    if len(failed) > context.max_bad_fraction * len(rows):
        first = min(failed)
        raise DataError(
            f"{len(failed)} of {len(rows)} questions cannot be answered; first: {rows[first]['id']}: {failed[first]}",
            expected=f"at most {context.max_bad_fraction:.1%}",
            fix="Repair the videos or the model, or raise max_bad_fraction.",
        )
    return {"failures": float(len(failed)), **{f"failures/{reason}": float(n) for reason, n in counts.items()}}


def _prediction_row(row: Mapping[str, Any], number: int, answers: Answers, scores: LetterScores) -> dict[str, Any]:
    keys = ("id", "question", "video", "kind", "language", "source", "group", "details")
    found = {key: row[key] for key in keys} | {"choices": list(row["choices"])}
    right = int(row["answer"])
    found["gold"] = LETTERS[right] if right >= 0 else None
    if number in scores.failures:
        return found | {"prediction": None, "failure": scores.failures[number]}
    index = int(answers.predicted[number])
    assert answers.probabilities is not None
    probabilities = answers.probabilities[number, : len(row["choices"])]
    found |= {
        "prediction": LETTERS[index],
        "answer": row["choices"][index],
        "confidence": float(probabilities[index]),
        "probabilities": dict(zip(LETTERS, map(float, probabilities), strict=False)),
        "failure": "",
    }
    return found | ({"correct": index == right} if right >= 0 else {})


def calibrate(
    model: InternVLForVideoQA, processor: ProcessorMixin, rows: Any, context: EvaluationContext
) -> dict[str, Any]:
    """Fit the temperature of the letters' probabilities on validation rows and write it to `model.config.calibration`.

    It minimises the negative log likelihood of the right letter, without support frames. With n < 30 answered rows it
    moves only n / 30 of the way from 1; without any it is 1.

    Returns:
        `dict`: temperature, n, nll_before, nll_after (per question) and a note.
    """
    known = [dict(row) for row in rows if row["answer"] >= 0]
    scores = predict_letters(model, processor, known, context, mode=_MODE) if known else None
    used = [number for number in range(len(known)) if number not in scores.failures] if scores else []
    if not used or scores is None:
        model.config.calibration = {"temperature": 1.0}
        return {"temperature": 1.0, "n": 0, "note": "No labelled validation rows: left at 1."}
    logits = scores.log_likelihoods[used]
    counts = np.array([len(known[number]["choices"]) for number in used])
    gold = scores.answers[used]
    trust = min(1.0, len(used) / _ENOUGH_ROWS)
    temperature = float(np.exp(trust * np.log(fit_letter_temperature(logits, counts, gold))))
    model.config.calibration = {"temperature": temperature}
    note = f"Fitted on {len(used)} validation questions."
    if len(used) < len(known):
        note += f" {len(known) - len(used)} more could not be read."
    if trust < 1:
        note += f" Fewer than {_ENOUGH_ROWS}: moved {trust:.0%} of the way from 1."
    logger.info("calibration: temperature %.3f. %s", temperature, note)
    return {
        "temperature": temperature,
        "n": len(used),
        "nll_before": letter_nll(logits, counts, gold),
        "nll_after": letter_nll(logits, counts, gold, temperature),
        "note": note,
    }
