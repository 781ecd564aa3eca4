"""The files of a submission: written line by line, continued where an interrupted run stopped."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hfvla.data.choices import LETTERS
from hfvla.errors import DataError
from hfvla.family import AnswerFile, EvaluationContext, SourceData
from hfvla.metrics.qa import latency_scores
from hfvla.models.internvl_video_qa.evaluation.predicting import DeadlineError, deadline, predict_letters
from hfvla.models.internvl_video_qa.evaluation.scores import failure_reason
from hfvla.outputs import beside

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.internvl_video_qa.modeling_internvl_video_qa import InternVLForVideoQA

__all__ = ["AnswerLine", "AnswerWriter", "write_answers"]

_OFFICIAL = ("answer",)
_DETAILS = ("answer", "confidence", "seconds", "failure")


@dataclass(frozen=True)
class AnswerLine:
    """The answer to one question.

    Attributes:
        id: of the question.
        answer: letter; "" = none.
        confidence: probability of the letter; None without an answer.
        seconds: that it took.
        failure: why there is no answer, or "".
    """

    id: str
    answer: str = ""
    confidence: float | None = None
    seconds: float = 0.0
    failure: str = ""

    def cells(self, columns: Sequence[str]) -> list[str]:
        """Return the cells of a file with these columns behind the id."""
        confidence = "" if self.confidence is None else f"{self.confidence:.6f}"
        values = {"answer": self.answer, "confidence": confidence, "seconds": f"{self.seconds:.4f}"}
        values["failure"] = " ".join(self.failure.split())
        return [self.id, *(values[column] for column in columns)]

    @classmethod
    def read(cls, values: dict[str, str]) -> AnswerLine:
        """Read a line of the details file."""
        confidence = float(values["confidence"]) if values["confidence"] else None
        return cls(values["id"], values["answer"], confidence, float(values["seconds"]), values["failure"])


class AnswerWriter:
    """Appends answers to a submission; each is on the disk before the next question is asked.

        submission.csv            id,answer                              the official file; no answer is an empty cell
        submission.details.csv    id,answer,confidence,seconds,failure   why there is none, and how long each took
        submission.run.json       what all lines share (checkpoint, data), and the summary at the end

    A name without .csv is kept whole: `ans.v1` has `ans.v1.details.csv`.

    Args:
        request: path, id column, settings, whether to start anew.
        known: ids of all questions and rejected records of the data.

    Raises:
        DataError: the file was begun with other settings, has other columns, answers a question that is not in the
            data, or cannot be written.
    """

    def __init__(self, request: AnswerFile, known: Iterable[str]) -> None:
        self.path = Path(request.path)
        self.details = beside(self.path, ".details.csv", usual=".csv")
        self.record = beside(self.path, ".run.json", usual=".csv")
        self.settings = json.loads(json.dumps({**request.settings, "id_column": request.id_column}, default=str))
        self.id_column, self.new = request.id_column, 0
        self.lines: dict[str, AnswerLine] = {}
        before = self._side_files()
        if not request.overwrite and (before or self.path.exists()):
            self._check_settings()
            self.lines = self._kept(set(known), request.retry_failed)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._rewrite()
            self._files = [path.open("a", encoding="utf-8", newline="") for path in (self.details, self.path)]
        except OSError as error:
            raise DataError("the submission cannot be written", where=str(self.path), got=error.strerror) from error

    def __enter__(self) -> AnswerWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        for file in self._files:
            file.close()

    def append(self, line: AnswerLine) -> None:
        """Write a line to both files; the official one last, as a line counts once it is there."""
        for file, columns in zip(self._files, (_DETAILS, _OFFICIAL), strict=True):
            file.write(_text([line.cells(columns)]))
            _flush(file)
        self.lines[line.id] = line
        self.new += 1

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary beside the settings."""
        _replace(self.record, json.dumps(self._facts(summary), indent=2) + "\n")

    def _side_files(self) -> bool:
        """Return whether there are side files of this submission.

        Raises:
            DataError: they are of another one, or no side files at all; --overwrite is not for them.
        """
        found = [path for path in (self.details, self.record) if path.exists()]
        for path in found:
            if not self._is_ours(path):
                raise DataError(
                    "this file is not of this submission, and would be replaced", where=str(path),
                    fix=f"Name another file than {self.path.name}, or move this one away.",
                )  # fmt: skip
        return bool(found)

    def _is_ours(self, path: Path) -> bool:
        try:
            with path.open(encoding="utf-8", newline="") as file:
                if path == self.details:
                    return (file.readline().rstrip("\n").split(",") or [""])[-4:] == list(_DETAILS)
                record = json.load(file)
        except (OSError, ValueError, RecursionError):
            return False
        return (
            isinstance(record, dict) and "settings" in record and record.get("file", self.path.name) == self.path.name
        )

    def _check_settings(self) -> None:
        try:
            before = json.loads(self.record.read_text(encoding="utf-8"))["settings"]
        except (OSError, ValueError, KeyError):
            raise DataError(
                "there is a file already, and nothing says what it answers",
                where=str(self.path),
                expected=f"{self.record.name} beside it",
                fix="Name another file, or start it anew with --overwrite.",
            ) from None
        changed = sorted(key for key in {*before, *self.settings} if before.get(key) != self.settings.get(key))
        if changed:
            raise DataError(
                "the file was begun with other settings",
                where=str(self.path),
                got={key: self.settings.get(key) for key in changed},
                expected={key: before.get(key) for key in changed},
                fix="Name another file, or start it anew with --overwrite.",
            )

    def _facts(self, summary: dict[str, Any] | None) -> dict[str, Any]:
        return {"file": self.path.name, "settings": self.settings, "summary": summary}

    def _kept(self, known: set[str], retry_failed: bool) -> dict[str, AnswerLine]:
        """Return the lines that both files hold in full."""
        official = {values["id"]: values["answer"] for values in self._complete(self.path, _OFFICIAL)}
        details = {values["id"]: AnswerLine.read(values) for values in self._complete(self.details, _DETAILS)}
        strange = [row_id for row_id in official if row_id not in known]
        if strange:
            raise DataError(
                "the file answers a question that the data does not hold", where=str(self.path), got=strange[0],
                fix="Name another file, or start it anew with --overwrite.",
            )  # fmt: skip
        return {
            row_id: details[row_id]
            for row_id, answer in official.items()
            if row_id in details
            and details[row_id].answer == answer
            and not (retry_failed and details[row_id].failure)
        }

    def _complete(self, path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
        """Read the lines of a file that end with a line break; the last one may be torn."""
        if not path.exists():
            return []
        text = path.read_text(encoding="utf-8")
        found = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))
        expected = [self.id_column, *columns]
        if found and found[0] != expected:
            raise DataError("the file has other columns", where=str(path), got=found[0], expected=expected)
        return [dict(zip(["id", *columns], row, strict=True)) for row in found[1:] if len(row) == len(expected)]

    def _rewrite(self) -> None:
        """Leave the files with exactly the lines kept."""
        _replace(self.record, json.dumps(self._facts(None), indent=2) + "\n")
        for path, columns in ((self.details, _DETAILS), (self.path, _OFFICIAL)):
            rows = [[self.id_column, *columns], *(line.cells(columns) for line in self.lines.values())]
            _replace(path, _text(rows))


def _text(rows: Iterable[Sequence[str]]) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _flush(file: IO[str]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _replace(path: Path, text: str) -> None:
    """Write a file so that it is old or new, never half of one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="")
    temporary.replace(path)


logger = logging.getLogger(__name__)

_EVERY = 25


def write_answers(
    model: InternVLForVideoQA, processor: ProcessorMixin, data: SourceData, request: AnswerFile
) -> dict[str, Any]:
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
    model: InternVLForVideoQA,
    processor: ProcessorMixin,
    row: Mapping[str, Any],
    context: EvaluationContext,
    deadline_s: float | None,
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
