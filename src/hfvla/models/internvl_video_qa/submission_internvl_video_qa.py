"""Answers to a whole test file as a challenge wants them: `answer_file` of the family contract."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hfvla.data.choices import LETTERS
from hfvla.errors import DataError
from hfvla.family import AnswerFile, EvaluationContext, SourceData
from hfvla.metrics.functions.qa import latency_scores
from hfvla.models.internvl_video_qa.answerfile_internvl_video_qa import AnswerLine, AnswerWriter
from hfvla.models.internvl_video_qa.deadline_internvl_video_qa import DeadlineError, deadline
from hfvla.models.internvl_video_qa.predicting_internvl_video_qa import predict_letters
from hfvla.models.internvl_video_qa.scoring_internvl_video_qa import failure_reason

__all__ = ["write_answers"]

logger = logging.getLogger(__name__)

_EVERY = 25


def write_answers(model: Any, processor: Any, data: SourceData, request: AnswerFile) -> dict[str, Any]:
    """Answer every question of a source, in its order, and write the submission (see `AnswerWriter` for its files).

    Questions are answered one by one, without support frames. One that takes longer than the deadline is given up
    where the platform lets it (else its answer is dropped once it is there), and has no answer, as a challenge gives
    it none. Records that the reader rejected are listed as failed, by their id.

    Args:
        model: `InternVLForVideoQA`.
        processor: its processor.
        data: rows of the source, and its rejected records.
        request: path, id column, limit, deadline.

    Returns:
        `dict`: path, details, questions, answered, failed, new (lines of this run), reasons (count by reason), latency
        percentiles over all lines and, where every question asked has a right answer, accuracy (a failed one is
        wrong).

    Raises:
        DataError: no usable question, two questions with one id, a file begun with other settings or data.
    """
    rows = [dict(row) for row in data.dataset]
    known = _checked_ids(rows, data)
    rejected = {row_id: reason for row_id, reason in data.rejected.items() if row_id not in known}
    asked = rows if request.limit is None else rows[: request.limit]
    context = EvaluationContext(batch_size=1, device=request.device)
    settings = {**request.settings, "answer_by": model.config.answer_by}
    with AnswerWriter(replace(request, settings=settings), [*known, *rejected]) as writer:
        waiting = [row for row in asked if row["id"] not in writer.lines]
        logger.info("%d questions: %d are in the file, %d to go", len(asked), len(asked) - len(waiting), len(waiting))
        for count, row in enumerate(waiting, start=1):
            writer.append(_answer(model, processor, row, context, request.deadline_s))
            if count % _EVERY == 0 or count == len(waiting):
                logger.info("answered %d of %d", count, len(waiting))
        for row_id, reason in rejected.items() if request.limit is None else ():
            if row_id not in writer.lines:
                writer.append(AnswerLine(row_id, failure=f"unusable record: {reason}"))
        summary = _summary(writer, rows, asked)
        writer.finish(summary)
    return summary


def _checked_ids(rows: Sequence[Mapping[str, Any]], data: SourceData) -> set[str]:
    """Return the ids of the questions.

    Raises:
        DataError: there is none, or two are equal.
    """
    if not rows:
        first = next(iter(data.rejected.items()), None)
        raise DataError("the data holds no usable question", got=first, expected="at least one")
    twice = [row_id for row_id, count in Counter(row["id"] for row in rows).items() if count > 1]
    if twice:
        raise DataError("two questions have one id", got=twice[0], fix="Each answer needs an id of its own.")
    return {row["id"] for row in rows}


def _answer(
    model: Any, processor: Any, row: Mapping[str, Any], context: EvaluationContext, deadline_s: float | None
) -> AnswerLine:
    """Answer one question."""
    started = time.perf_counter()
    scores = None
    try:
        with deadline(deadline_s):
            scores = predict_letters(model, processor, [row], context, mode="segments")
    except DeadlineError:
        logger.debug("question %s was given up", row["id"])
    seconds = time.perf_counter() - started
    if scores is None or (deadline_s is not None and seconds > deadline_s):
        failure = f"over the deadline of {deadline_s:g} s"
    elif scores.failures:
        failure = scores.failures[0]
    else:
        index = int(scores.predictions[0])
        return AnswerLine(row["id"], LETTERS[index], float(scores.probabilities[0, index]), seconds)
    logger.warning("question %s has no answer: %s", row["id"], failure)
    return AnswerLine(row["id"], seconds=seconds, failure=failure)


def _summary(
    writer: AnswerWriter, rows: Sequence[Mapping[str, Any]], asked: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    known, lines = {row["id"]: row for row in rows}, writer.lines
    reasons = Counter(
        failure_reason(line.failure, known[row_id]) if row_id in known else line.failure.split(": ")[1]
        for row_id, line in lines.items()
        if line.failure
    )
    failed = sum(reasons.values())
    summary = {
        "path": str(writer.path),
        "details": str(writer.details),
        "questions": len(lines),
        "answered": len(lines) - failed,
        "failed": failed,
        "new": writer.new,
        **latency_scores([line.seconds for line in lines.values() if line.seconds]),
        "reasons": dict(reasons),
    }
    if asked and all(row["answer"] >= 0 for row in asked):
        right = [lines[row["id"]].answer == LETTERS[row["answer"]] for row in asked]
        summary["accuracy"] = sum(right) / len(right)
    return summary
