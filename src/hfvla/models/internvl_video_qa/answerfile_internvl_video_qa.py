"""The files of a submission: written line by line, continued where an interrupted run stopped."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hfvla.errors import DataError
from hfvla.family import AnswerFile
from hfvla.outputs import beside

__all__ = ["AnswerLine", "AnswerWriter"]

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
