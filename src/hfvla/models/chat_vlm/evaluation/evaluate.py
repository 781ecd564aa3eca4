"""Answers are written and scored by what is asked; the same with a grey picture, and without any."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hfvla.data.rows.columns import column
from hfvla.data.samples.chat import ChatSample
from hfvla.errors import DataError
from hfvla.family import EvaluationContext, EvaluationResult
from hfvla.metrics.chat.evaluating import evaluate_chat
from hfvla.metrics.chat.scores import score_answers
from hfvla.metrics.chat.tasks import tasks_of
from hfvla.metrics.chat.writing import write_answers
from hfvla.models.chat_vlm.answering import chat_system

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["evaluate"]


def evaluate(
    model: PreTrainedModel, processor: ProcessorMixin, rows: Any, context: EvaluationContext
) -> EvaluationResult:
    """Let the model answer the last question of conversations, and score what it wrote by what each asks for.

    See `hfvla.metrics.chat.evaluating.evaluate_chat`; beside its baselines stands this model without any picture
    (`no_image`), which tells how much of a score is in the questions.

    Args:
        model: of transformers.
        processor: its processor.
        rows: of `ChatSample`.
        context: training rows, batch size, seed, resamples, how many answers are written; options `max_new_tokens`.

    Raises:
        DataError: no rows, or more of them fail than the context allows.
    """
    system, most = chat_system(model, processor), int(context.options.get("max_new_tokens", 64))
    result = evaluate_chat(system, rows, context, max_new_tokens=most)
    if context.ablations:
        answered = {row["id"] for row in result.rows if row.get("prediction") is not None}
        samples = [ChatSample.from_row(row) for row in _named(rows, answered)]
        samples = [sample for sample in samples if sample.images or sample.videos]
        texts, lost = write_answers(system, samples, context, most, "no image", _without_pictures)
        if samples and not lost:
            scores = score_answers(samples, tasks_of(samples), texts)
            result.ablations["no_image"] = scores.summary() | {"n": float(len(samples))}
    return result


def _named(rows: Any, names: set[str]) -> list[dict[str, Any]]:
    """Return the rows of these ids, in their order."""
    ids = column(rows, "id") if hasattr(rows, "column_names") else [row["id"] for row in rows]
    return [dict(rows[number]) for number, name in enumerate(ids) if name in names]


def _without_pictures(sample: ChatSample) -> ChatSample:
    turns = tuple(replace(turn, content=tuple(p for p in turn.content if p.type == "text")) for turn in sample.turns)
    if not all(turn.content for turn in turns):
        raise DataError("without its pictures nothing is left of a turn", where=sample.id)
    return replace(sample, turns=turns, images=(), videos=())
