"""Evaluation and calibration of EmberVLM: `evaluate` and `calibrate` of the family contract."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hfvla.data.rows.columns import column
from hfvla.errors import DataError
from hfvla.family import EvaluationContext, EvaluationResult
from hfvla.metrics.calibration import binary_nll, choose_threshold, fit_temperature, sigmoid
from hfvla.metrics.chat.evaluating import evaluate_chat
from hfvla.models.ember_vlm.conversations import is_conversation, only_conversations
from hfvla.models.ember_vlm.conversing import chat_system
from hfvla.models.ember_vlm.evaluation.ablation import calibrated_choices, predict_logits, run_ablations, shared_pixels
from hfvla.models.ember_vlm.evaluation.figures import chain_figure, selection_figures, selection_mistakes
from hfvla.models.ember_vlm.evaluation.scores import (
    Choices,
    all_intervals,
    gold_sets,
    score_baselines,
    selection_metrics,
)
from hfvla.models.ember_vlm.evaluation.writing import Written, examples_figure, write_answers, written_metrics

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.ember_vlm.modeling_ember_vlm import EmberVLMForRobotSelection

__all__ = ["calibrate", "evaluate"]

logger = logging.getLogger(__name__)

_NOT_FINITE = "the model's scores are not finite"
_KEPT = ("id", "task", "robots", "source", "group")
_ENOUGH_ROWS = 30  # below, calibration is drawn towards temperature 1 and threshold 0.5


def evaluate(
    model: EmberVLMForRobotSelection, processor: ProcessorMixin, rows: Any, context: EvaluationContext
) -> EvaluationResult:
    """Predict every row and score those that have a gold set.

    Args:
        model: `EmberVLMForRobotSelection`.
        processor: its processor.
        rows: `datasets.Dataset` of `RobotTask` rows; rows without robots are predicted only. Or of conversations about
            pictures, which are answered (`hfvla.metrics.chat`).
        context: training rows for baselines, seed, batch size, number of resamples and of generated texts.

    A row whose scores are not finite has no prediction: it is counted, named, and left out of the scores.

    Raises:
        DataError: no rows, a robot that is not in the fleet, or too many rows without finite scores.
    """
    if len(rows) and is_conversation(rows[0]):
        about = replace(context, train_rows=only_conversations(context.train_rows))
        return evaluate_chat(chat_system(model.to(context.device), processor), rows, about)
    if not len(rows):
        raise DataError("there is nothing to evaluate", got="0 rows", fix="Check the evaluation source's options.")
    robots = list(model.config.robots)
    model.to(context.device)
    gold = gold_sets(rows, robots)
    logits = predict_logits(model, processor, rows, context)
    finite = np.isfinite(logits).all(axis=1)
    failed = rows.select(np.flatnonzero(~finite))
    notes = _failure_notes(failed, len(rows), context)
    if len(failed):
        rows, gold, logits = rows.select(np.flatnonzero(finite)), gold[finite], logits[finite]
    choices = calibrated_choices(model, logits)
    written = write_answers(model, processor, rows, context)
    labelled = np.flatnonzero(gold.any(axis=1))
    result = EvaluationResult(metrics={"n": len(labelled) or len(rows), "failures": len(failed)}, notes=notes)
    if len(labelled):
        _score(result, model, processor, rows.select(labelled), gold[labelled], choices.rows(labelled), context)
    if len(labelled) < len(rows):
        unknown = len(rows) - len(labelled)
        result.notes.append(f"{unknown} of {len(rows)} rows have no gold set: predicted, not scored.")
    result.metrics |= written_metrics(written, rows, gold, choices, robots)
    if "written/n" in result.metrics:
        result.figures.append(chain_figure(result.metrics))
    if len(written.index):
        result.figures.append(examples_figure(written, rows, gold, choices, robots))
        result.notes.append(f"Text was generated for {len(written.index)} of {len(rows)} rows.")
        if model.config.explain_decision:
            result.notes.append("Each text was told what the head chose: its consistency says how well it follows.")
    result.rows = _prediction_rows(rows, gold, choices, written, robots)
    for row_id, task, names, source, group in zip(*(column(failed, name) for name in _KEPT), strict=True):
        lost = {"id": row_id, "task": task, "gold": list(names), "source": source, "group": group}
        result.rows.append(lost | {"prediction": None, "failure": _NOT_FINITE})
    return result


def _failure_notes(failed: Any, count: int, context: EvaluationContext) -> list[str]:
    """Name the rows whose scores are not finite.

    Raises:
        DataError: they are more than the context allows, or all.
    """
    if not len(failed):
        return []
    text = f"{len(failed)} of {count} rows have no prediction: {_NOT_FINITE}; first: {failed[0]['id']}"
    if len(failed) > context.max_bad_fraction * count or len(failed) == count:
        limit = f"at most {context.max_bad_fraction:.1%}"
        raise DataError(text, expected=limit, fix="Look at the training's loss: the weights are damaged.")
    logger.warning("%s", text)
    return [text]


def _score(
    result: EvaluationResult,
    model: EmberVLMForRobotSelection,
    processor: ProcessorMixin,
    rows: Any,
    gold: np.ndarray,
    choices: Choices,
    context: EvaluationContext,
) -> None:
    """Fill in scores, baselines, ablations, intervals and figures of labelled rows."""
    robots = list(model.config.robots)
    result.metrics |= selection_metrics(gold, choices, robots)
    baselines = score_baselines(rows, context, robots)
    result.baselines = {name: selection_metrics(gold, each, robots) for name, each in baselines.choices.items()}
    prior = baselines.choices.get("majority")
    if context.ablations:
        result.ablations = run_ablations(model, processor, rows, choices, context, prior)
    # After what processes share: the others do not wait while one draws resamples.
    result.intervals = all_intervals(gold, {"": choices, **baselines.choices}, robots, column(rows, "group"), context)
    result.notes += baselines.notes
    absent = [robot for robot, count in zip(robots, gold.sum(axis=0), strict=True) if not count]
    if absent:
        result.notes.append(f"Never in a gold set, so their F1 of 0 lowers macro F1: {', '.join(absent)}.")
    if result.ablations:
        pixels = shared_pixels(rows)
        result.notes.append(
            f"{pixels['distinct_images']} distinct pictures in {pixels['images']} rows; {pixels['shared_images']} are "
            f"shared by several rows, {pixels['shared_with_different_gold']} of them with different gold sets."
        )
    calibration = model.config.calibration
    result.notes.append(
        f"Temperature {calibration['temperature']:.3f} and threshold {calibration['threshold']:.2f} come from the "
        "checkpoint; the baselines' own from cross-validation on training rows."
    )
    primary = np.array([robots.index(names[0]) for names in column(rows, "robots")])
    result.figures += selection_figures(
        gold, primary, choices, result.metrics, result.baselines, result.ablations, result.intervals, robots
    )
    mistakes = selection_mistakes(rows, gold, choices, robots) if context.processes.is_main else None
    result.figures += [mistakes] if mistakes is not None else []


def _prediction_rows(
    rows: Any, gold: np.ndarray, choices: Choices, written: Written, robots: Sequence[str]
) -> list[dict[str, Any]]:
    texts = {int(i): m for m, i in enumerate(written.index)}
    found = []
    for i, (row_id, task, names, source, group) in enumerate(
        zip(*(column(rows, name) for name in _KEPT), strict=True)
    ):
        scores, chosen = choices.probabilities[i], choices.predicted[i]
        top = int(scores.argmax())
        row = {
            "id": row_id,
            "task": task,
            "gold": list(names),
            "prediction": [robots[r] for r in np.argsort(-scores, kind="stable") if chosen[r]],
            "top": robots[top],
            "confidence": float(scores[top]),
            "scores": dict(zip(robots, map(float, scores), strict=True)),
            "source": source,
            "group": group,
        }
        if gold[i].any():
            row |= {"exact_match": bool((gold[i] == chosen).all()), "top1_in_set": bool(gold[i, top])}
        if i in texts:
            answer = written.answers[texts[i]]
            row |= {
                "reasoning": answer.reasoning,
                "written_decision": list(written.decisions[texts[i]]),
                "plan": [{"subtask": s.subtask, "robot": s.robot, "order": s.order} for s in answer.plan],
            }
        found.append(row)
    return found


def calibrate(
    model: EmberVLMForRobotSelection, processor: ProcessorMixin, rows: Any, context: EvaluationContext
) -> dict[str, Any]:
    """Fit temperature and threshold on validation rows and write them to `model.config.calibration`.

    The temperature minimises the negative log likelihood, the threshold maximises exact match + Jaccard. With n < 30
    labelled rows both move only n / 30 of the way from 1.0 and 0.5; without any they are 1.0 and 0.5.

    Returns:
        `dict`: temperature, threshold, n, nll_before, nll_after (NLL per label) and a note.

    Raises:
        DataError: the scores of too many rows are not finite.
    """
    gold = gold_sets(rows, model.config.robots)
    labelled = np.flatnonzero(gold.any(axis=1))
    if not len(labelled):
        model.config.calibration = {"temperature": 1.0, "threshold": 0.5}
        return {**model.config.calibration, "n": 0, "note": "No labelled validation rows: left at 1.0 and 0.5."}
    model.to(context.device)
    logits, gold = predict_logits(model, processor, rows.select(labelled), context, label="calibrate"), gold[labelled]
    finite = np.isfinite(logits).all(axis=1)
    _failure_notes(rows.select(labelled[~finite]), len(labelled), context)
    logits, gold, labelled = logits[finite], gold[finite], labelled[finite]
    trust = min(1.0, len(labelled) / _ENOUGH_ROWS)
    temperature = float(np.exp(trust * np.log(fit_temperature(logits, gold))))
    best = choose_threshold(sigmoid(logits / temperature), gold)
    threshold = 0.5 + trust * (best - 0.5)
    model.config.calibration = {"temperature": temperature, "threshold": threshold}
    note = f"Fitted on {len(labelled)} validation rows."
    if trust < 1:
        note += f" Fewer than {_ENOUGH_ROWS}: moved {trust:.0%} of the way from temperature 1.0 and threshold 0.5."
    logger.info("calibration: temperature %.3f, threshold %.2f. %s", temperature, threshold, note)
    return {
        **model.config.calibration,
        "n": len(labelled),
        "nll_before": binary_nll(logits, gold),
        "nll_after": binary_nll(logits, gold, temperature),
        "note": note,
    }
