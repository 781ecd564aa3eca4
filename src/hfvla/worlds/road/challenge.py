"""Generated clips and questions as files in the format of the road-video challenge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfvla.data.choices import format_choice
from hfvla.data.samples.video import VideoQuestion
from hfvla.worlds.road.builder import RoadOptions, generate_questions, write_clips
from hfvla.worlds.road.holdout import Split

__all__ = ["ChallengeFiles", "challenge_record", "write_challenge"]


@dataclass(frozen=True)
class ChallengeFiles:
    """What `write_challenge` wrote.

    Attributes:
        train: questions with answers and support frames.
        test: questions alone, as a challenge gives them out.
        test_labelled: the same questions with answers and support frames.
    """

    train: Path
    test: Path
    test_labelled: Path


def challenge_record(question: VideoQuestion, root: Path, *, labelled: bool) -> dict[str, Any]:
    """Return a question as the challenge's JSON writes it; choices and answer with their letters.

    Args:
        question: with its video under `root`.
        root: data root that `video_path` is relative to.
        labelled: with "answer" and "support_frames".
    """
    choices = [format_choice(index, text) for index, text in enumerate(question.choices)]
    record: dict[str, Any] = {"id": question.id, "question": question.question, "choices": choices}
    if labelled:
        record |= {"answer": choices[question.answer], "support_frames": list(question.support_frames)}
    return record | {"video_path": Path(question.video).relative_to(root).as_posix()}


def write_challenge(
    folder: str | Path, options: RoadOptions | None = None, *, test_size: int = 100, seed: int = 0
) -> ChallengeFiles:
    """Write train.json, test.json, test_labelled.json and their clips (train/videos, test/videos) into a folder.

    The test questions are on clips of the test split, with looks and names that train never has.

    Args:
        folder: data root.
        options: of the training part; its `split` and `folder` are not looked at.
        test_size: number of test questions.
        seed: of both parts, unless the options have their own.

    Raises:
        DataError: the folder cannot be written.
        MissingExtraError: PyAV is not installed.
    """
    root = Path(folder).expanduser().absolute()
    options = options or RoadOptions()
    seed = options.seed if options.seed is not None else seed
    train = _write_part(root, options.model_copy(update={"split": "train"}), "train", seed)
    test = _write_part(root, options.model_copy(update={"split": "test", "size": test_size}), "test", seed)
    return ChallengeFiles(
        train=_write_json(root / "train.json", train, root, labelled=True),
        test=_write_json(root / "test.json", test, root, labelled=False),
        test_labelled=_write_json(root / "test_labelled.json", test, root, labelled=True),
    )


def _write_part(root: Path, options: RoadOptions, split: Split, seed: int) -> list[VideoQuestion]:
    videos = root / split / "videos"
    clips, questions = generate_questions(options, seed, videos)
    write_clips(clips, options, videos, keep=False)
    return questions


def _write_json(path: Path, questions: Sequence[VideoQuestion], root: Path, *, labelled: bool) -> Path:
    records = [challenge_record(question, root, labelled=labelled) for question in questions]
    text = json.dumps({"__count__": len(records), "data": records}, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    return path
