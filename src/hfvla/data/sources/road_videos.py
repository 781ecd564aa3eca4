"""Reader of the road-video challenge's JSON: multiple-choice questions on dashcam clips.

    {"__count__": 1490, "data": [{"id": "train_0001", "question": "...", "choices": ["A. ...", "B. ..."],
     "answer": "B. ...", "support_frames": [4.427402], "video_path": "train/videos/x.mp4"}]}

Test files lack "answer" and "support_frames". Every record that cannot be used is counted by reason with the first
offender named. The group of a row is its video's content, so that a clip stored twice does not cross a split.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hfvla.data.samples.video import UNLABELLED, VideoQuestion, build_video_dataset
from hfvla.data.sources.census import Census, UnusableError
from hfvla.data.sources.inside import inside_root
from hfvla.data.sources.road_records import (
    RepeatedLetters,
    answer_of,
    choices_of,
    has_repeated_letters,
    id_of,
    language_of,
    load_questions,
    support_of,
    text_of,
)
from hfvla.data.text import clean_text, text_problem
from hfvla.data.video import VideoReader
from hfvla.errors import DataError
from hfvla.family import SourceData
from hfvla.paths import UserPath

__all__ = ["RoadVideosOptions", "build_road_videos", "count_road_videos"]

logger = logging.getLogger(__name__)

_SAMPLE_BYTES = 1 << 16  # of a video's beginning, middle and end: what tells it from any other


class RoadVideosOptions(BaseModel):
    """What a recipe may say about a file of the road-video challenge.

    Attributes:
        path: train or test JSON.
        root: folder that `video_path` is relative to, and that no video may lie outside of; default: the file's own.
        max_bad_fraction: share of unusable records above which reading fails.
        repeated_letters: choices that carry a letter twice (A, B, C, C): "by_place" gives each the letter of its
            place and counts the question, "refuse" refuses it.
    """

    model_config = ConfigDict(extra="forbid")

    path: UserPath
    root: UserPath | None = None
    max_bad_fraction: float = Field(default=0.01, ge=0.0, le=1.0)
    repeated_letters: RepeatedLetters = "by_place"


@dataclass(frozen=True)
class _Video:
    path: str
    duration_s: float
    group: str


class _Videos:
    """Looks at each video once: is it inside the root, there, and whole?"""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self._seen: dict[str, _Video | UnusableError] = {}
        self._reader = VideoReader(open_files=0, threads=1)

    def __len__(self) -> int:
        return len({video.group for video in self._seen.values() if isinstance(video, _Video)})

    def find(self, value: Any) -> _Video:
        """Return the video of a `video_path`.

        Raises:
            UnusableError: no path, outside the root, missing, or broken.
        """
        if not isinstance(value, str):
            raise UnusableError("no video path", f"got {value!r}")
        if value not in self._seen:
            try:
                self._seen[value] = self._look(value)
            except UnusableError as problem:
                self._seen[value] = problem
        found = self._seen[value]
        if isinstance(found, UnusableError):
            raise UnusableError(found.reason, found.detail)
        return found

    def _look(self, value: str) -> _Video:
        path = inside_root(self.root, value, "video")
        if not path.exists():
            raise UnusableError("missing video", str(path))
        try:
            info = self._reader.probe(path)
            group = _content_key(path)
        except DataError as error:
            raise UnusableError(error.what, _reason(error, path)) from error
        return _Video(str(path), info.duration_s, group)


def _reason(error: DataError, path: Path) -> str:
    got = "" if error.got is None else f"; got {error.got}"
    expected = "" if error.expected is None else f"; expected {error.expected}"
    return f"{path}{got}{expected}"


def _content_key(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for start in (0, max(size // 2 - _SAMPLE_BYTES // 2, 0), max(size - _SAMPLE_BYTES, 0)):
            file.seek(start)
            digest.update(file.read(_SAMPLE_BYTES))
    return f"video/{digest.hexdigest()[:20]}"


def _question(
    record: Any, record_id: str, videos: _Videos, used: set[str], repeated_letters: RepeatedLetters
) -> VideoQuestion:
    if not isinstance(record, Mapping):
        raise UnusableError("not an object", f"got {type(record).__name__}")
    if not record_id:
        raise UnusableError("no id", f"keys {sorted(map(str, record))}")
    if record_id in used:
        raise UnusableError("id used twice", record_id)
    used.add(record_id)
    question = text_of(record, "question")
    choices = choices_of(record, repeated_letters)
    answer = answer_of(record, choices)
    video = videos.find(record.get("video_path"))
    kind = record.get("kind", record.get("question_type"))
    return VideoQuestion(
        id=record_id,
        question=question,
        choices=choices,
        answer=answer,
        video=video.path,
        support_frames=support_of(record, video.duration_s),
        duration=video.duration_s,
        kind=_kind(kind),
        language=language_of(" ".join((question, *choices))),
        source="road_videos",
        group=video.group,
        details={"letters": "by_place"} if has_repeated_letters(record) else {},
    )


def _kind(value: Any) -> str:
    if value is not None and (not isinstance(value, str) or text_problem(value)):
        raise UnusableError("kind is no text", f"got {value!r}"[:200])
    return clean_text(value or "")


def _read(options: RoadVideosOptions) -> tuple[list[VideoQuestion], Census, int]:
    path = Path(options.path)
    videos = _Videos(Path(options.root) if options.root else path.parent)
    census, questions, used = Census(), [], set[str]()
    for where, record in load_questions(path):
        census.found += 1
        record_id = id_of(record)
        try:
            questions.append(_question(record, record_id, videos, used, options.repeated_letters))
        except UnusableError as problem:
            census.reject(where, record_id, problem)
    return questions, census, len(videos)


def count_road_videos(options: RoadVideosOptions) -> int:
    """Return how many records the file has, without looking at its videos.

    Raises:
        DataError: unreadable or broken file, or unknown format.
    """
    return len(load_questions(Path(options.path)))


def build_road_videos(options: RoadVideosOptions, *, seed: int = 0) -> SourceData:
    """Read a file of the road-video challenge into rows; each video is opened once, to see that it is whole.

    Args:
        options: see `RoadVideosOptions`.
        seed: unused; part of every source's signature.

    Returns:
        `SourceData`; its census also counts "videos" (different ones), "unlabelled" and "without_support" rows, and
        "letters_by_place" where there are such rows (their detail "letters" is "by_place");
        `rejected` tells why each record that cannot be used cannot, by its id.

    Raises:
        DataError: unreadable or broken file, unknown format, or too many unusable records.
        MissingExtraError: PyAV is not installed.
    """
    questions, census, videos = _read(options)
    counts = {
        "videos": videos,
        "unlabelled": sum(question.answer == UNLABELLED for question in questions),
        "without_support": sum(not question.support_frames for question in questions),
    }
    slips = [question.id for question in questions if question.details]
    if slips:
        counts["letters_by_place"] = len(slips)
        logger.warning(
            "%s: %d questions carry a letter twice and get letters by place, first %s; repeated_letters: refuse "
            "refuses them",
            options.path,
            len(slips),
            slips[0],
        )
    census.log(options.path, counts.items())
    census.refuse_if_too_bad(options.max_bad_fraction, options.path)
    summary = {"found": census.found, "usable": census.usable, "rejected": census.rejected(), **counts}
    rejected = {one.id: f"{one.reason}: {one.detail}" for one in census.rejections if one.id}
    return SourceData(build_video_dataset(questions), summary, rejected)
