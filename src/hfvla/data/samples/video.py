"""Multiple-choice questions on a video, as every source yields them, and their `datasets` features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset, Features

__all__ = ["UNLABELLED", "VideoQuestion", "build_video_dataset", "parse_details", "video_question_features"]

UNLABELLED = -1
"""Answer of a question whose answer is not known."""


@dataclass(frozen=True)
class VideoQuestion:
    """One question on one video; choice i has the letter "ABCD"[i].

    Attributes:
        id: unique within its source; what a submission names.
        question: the question's text.
        choices: 2 to 4 texts without their letters.
        answer: index into `choices`, or `UNLABELLED`.
        support_frames: seconds from the clip's first frame at which the answer can be seen; empty when unknown.
        video: path of the file.
        duration: of the video, seconds; 0.0 when unknown.
        kind: type of question, "" when unknown.
        language: "vi", "en", or "" when unknown.
        source: name of the reader or generator.
        group: the video: what must not cross a split.
        details: further facts as strings, e.g. {"needs_moment": "1"}.
    """

    id: str
    question: str
    choices: tuple[str, ...]
    answer: int
    video: str
    support_frames: tuple[float, ...] = ()
    duration: float = 0.0
    kind: str = ""
    language: str = ""
    source: str = ""
    group: str = ""
    details: dict[str, str] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """Return a plain dict for `datasets` (details become one `key=value;...` string)."""
        return {
            "id": self.id,
            "question": self.question,
            "choices": list(self.choices),
            "answer": self.answer,
            "support_frames": list(self.support_frames),
            "video": self.video,
            "duration": self.duration,
            "kind": self.kind,
            "language": self.language,
            "source": self.source,
            "group": self.group or self.video,
            "details": ";".join(f"{key}={value}" for key, value in self.details.items()),
        }


def parse_details(details: str) -> dict[str, str]:
    """Split a row's "key=value;..." string; "" gives {}."""
    return dict(part.split("=", 1) for part in details.split(";") if part)


def video_question_features() -> Features:
    """Return the features of a video-question row, the same for every source."""
    from datasets import Features, List, Value

    text = Value("string")
    return Features(
        {
            "id": text,
            "question": text,
            "choices": List(text),
            "answer": Value("int64"),
            "support_frames": List(Value("float64")),
            "video": text,
            "duration": Value("float64"),
            "kind": text,
            "language": text,
            "source": text,
            "group": text,
            "details": text,
        }
    )


def build_video_dataset(questions: Iterable[VideoQuestion]) -> Dataset:
    """Put questions into an in-memory `datasets.Dataset` with `video_question_features`; also for none at all."""
    from datasets import Dataset

    rows = [question.to_row() for question in questions]
    features = video_question_features()
    return Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features)
