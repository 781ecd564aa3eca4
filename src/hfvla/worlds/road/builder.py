"""Builds data sets of generated road questions; clips are drawn once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hfvla.data.samples.video import VideoQuestion, build_video_dataset
from hfvla.data.video.files import check_video_file
from hfvla.errors import DataError
from hfvla.family import SourceData
from hfvla.paths import UserPath
from hfvla.worlds.road.clip import Clip, draw_clip
from hfvla.worlds.road.encode import write_mp4
from hfvla.worlds.road.frames import ClipFrames
from hfvla.worlds.road.holdout import Split
from hfvla.worlds.road.questions import KINDS, MOMENT_KINDS, QUESTIONS_PER_CLIP, Kind, ask
from hfvla.worlds.versions import source_version

__all__ = ["RoadOptions", "build_road", "count_road", "generate_questions", "write_clips"]

logger = logging.getLogger(__name__)


class RoadOptions(BaseModel):
    """What a recipe may say about generated road clips.

    Attributes:
        size: number of questions; each clip has four, where the kinds allow so many different ones.
        split: "train", or "test" with palettes, places of signs, body colours and town names that train never uses.
        seed: overrides the run's seed.
        extra_support: support frames of other moments beside those a question needs: between being shown the moment
            and having to find it in the whole clip.
        folder: where clips are kept; by default beside the hub's cache. Each set of options has its own subfolder.
        languages: to ask in.
        kinds: what may be asked; see `hfvla.worlds.road.questions`.
        image_size: pixels a side; even.
        seconds: length of a clip.
        fps: frames a second.
    """

    model_config = ConfigDict(extra="forbid")

    size: int = Field(default=2000, ge=1)
    split: Split = "train"
    seed: int | None = None
    folder: UserPath | None = None
    languages: tuple[Literal["vi", "en"], ...] = Field(default=("vi", "en"), min_length=1)
    kinds: tuple[Kind, ...] = Field(default=KINDS, min_length=1)
    extra_support: int = Field(default=0, ge=0, le=3)
    image_size: int = Field(default=96, ge=64, le=1024, multiple_of=2)
    seconds: float = Field(default=6.0, ge=6.0, le=60.0)
    fps: int = Field(default=8, ge=8, le=60)

    @field_validator("languages", "kinds")
    @classmethod
    def _without_repeats(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))

    @property
    def clips(self) -> int:
        """Clips that so many questions need."""
        return math.ceil(self.size / self.questions_per_clip)

    @property
    def questions_per_clip(self) -> int:
        """Questions asked about each clip; the last clip may have fewer."""
        different = sum(4 if kind in MOMENT_KINDS else 1 for kind in self.kinds)
        return min(QUESTIONS_PER_CLIP, different)


def _clip_folder(options: RoadOptions, seed: int) -> Path:
    """Folder of the clips of these options; the number of questions and their wording do not matter to it."""
    drawn = {"split": options.split, "seed": seed, "version": source_version(__file__)}
    drawn |= {name: getattr(options, name) for name in ("image_size", "seconds", "fps")}
    key = hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()[:12]
    if options.folder is None:
        from huggingface_hub.constants import HF_HOME

        root = Path(HF_HOME) / "hfvla" / "road"
    else:
        root = Path(options.folder)
    return root.expanduser().absolute() / f"{options.split}-{seed}-{key}"


def generate_questions(options: RoadOptions, seed: int, folder: Path) -> tuple[list[Clip], list[VideoQuestion]]:
    """Draw the facts and questions of all clips; nothing is rendered.

    A clip and its questions are a function of (seed, split, index) and the kinds and languages, never of other clips.

    Args:
        options: see `RoadOptions`; its own seed is not looked at here.
        seed: of the data set.
        folder: where the clips are to lie.
    """
    clips = [draw_clip(index, options.split, seed) for index in range(options.clips)]
    questions: list[VideoQuestion] = []
    for clip in clips:
        video = str(folder / f"{clip.name}.mp4")
        group = f"road/{clip.name}"
        questions += ask(
            clip,
            options.split,
            options.kinds,
            options.languages,
            options.seconds,
            video,
            group,
            options.extra_support,
        )
    return clips, questions[: options.size]


def write_clips(clips: Iterable[Clip], options: RoadOptions, folder: Path, *, keep: bool = True) -> int:
    """Write clips into a folder, and return how many were drawn.

    Args:
        clips: their facts.
        options: size, length and frame rate.
        folder: where they are to lie.
        keep: leave clips that are there already; only where the folder tells the options they were drawn with.

    Raises:
        DataError: the folder cannot be written.
        MissingExtraError: PyAV is not installed.
    """
    drawn = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for clip in clips:
            path = folder / f"{clip.name}.mp4"
            if not (keep and _is_whole(path)):
                write_mp4(path, ClipFrames(clip, options.image_size, options.seconds, options.fps), options.fps)
                drawn += 1
    except OSError as error:
        raise DataError(
            "generated clips cannot be written",
            where=str(folder),
            got=error.strerror or str(error),
            fix="Name another folder in the source's options, or make room.",
        ) from error
    return drawn


def _is_whole(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        check_video_file(path)
    except DataError as error:
        logger.warning("drawing a damaged clip again: %s", error)
        return False
    return True


def count_road(options: RoadOptions) -> int:
    """Return how many questions `build_road` will yield, without generating them."""
    return options.size


def build_road(options: RoadOptions, *, seed: int = 0) -> SourceData:
    """Generate questions, and those of their clips that are not on disk yet.

    Args:
        options: see `RoadOptions`.
        seed: seed of the run, unless the options have their own.

    Returns:
        `SourceData`; its census has "clips", "drawn" (clips not found on disk), "folder", "kinds" and "needs_moment".

    Raises:
        DataError: the folder cannot be written.
        MissingExtraError: PyAV is not installed.
    """
    seed = options.seed if options.seed is not None else seed
    folder = _clip_folder(options, seed)
    clips, questions = generate_questions(options, seed, folder)
    drawn = write_clips(clips, options, folder)
    kinds = Counter(question.kind for question in questions)
    census = {
        "found": len(questions),
        "usable": len(questions),
        "rejected": {},
        "clips": len(clips),
        "drawn": drawn,
        "folder": str(folder),
        "kinds": dict(sorted(kinds.items())),
        "needs_moment": sum(kinds[kind] for kind in MOMENT_KINDS),
    }
    logger.info(
        "generated road questions (%s): %d on %d clips (%d drawn now) in %s, of which %d need the right moment",
        options.split,
        len(questions),
        len(clips),
        drawn,
        folder,
        census["needs_moment"],
    )
    return SourceData(build_video_dataset(questions), census)
