"""Videos of a conversation: frames by the shared reader, as the model's own video processor wants them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hfvla.data.video import VideoInfo, VideoReader
from hfvla.data.video.sampling import segment_centres
from hfvla.errors import DataError

if TYPE_CHECKING:
    from transformers import ProcessorMixin
    from transformers.video_utils import VideoMetadata

__all__ = ["check_clips", "frame_count", "locate_clip", "read_clip"]

_FPS, _FEWEST, _MOST = 2.0, 4, 32  # where a video processor does not say


@cache
def _reader() -> VideoReader:
    return VideoReader(threads=1)  # a worker of a data loader is one of several


def check_clips(processor: ProcessorMixin, images: bool, clips: Sequence[tuple[Any, Any]]) -> None:
    """Refuse videos of one conversation that a processor would mix up, or cannot take together.

    Args:
        processor: of the model.
        images: whether there are pictures beside the videos.
        clips: the videos: frames, and where they lie in the clip.

    Raises:
        ValueError: pictures and videos have one name, as SmolVLM's, and one would take the other's place; or the
            model wants as many frames of each video.
    """
    parts = (processor.image_processor, processor.video_processor)
    names = [set(getattr(part, "model_input_names", ())) for part in parts]
    if images and names[0] & names[1]:
        raise ValueError("pictures and videos in one conversation, which this model cannot take")
    counts = [len(frames) for frames, _ in clips]
    if len(set(counts)) > 1 and not hasattr(processor.video_processor, "merge_size"):
        shown = " and ".join(map(str, counts))
        raise ValueError(
            f"videos of {shown} frames in one conversation, of which this model takes equal numbers: "
            "set model.options.frames"
        )


def frame_count(video_processor: Any, duration_s: float, frames: int) -> int:
    """Return how many frames of a clip are seen, by the rule of the model's video processor.

    Args:
        video_processor: its `num_frames` decides (`model.options.frames`), else its `fps`, `min_frames` and
            `max_frames`; 2 a second, 4 to 32, where it has none.
        duration_s: of the clip.
        frames: that the clip has; never more are seen.
    """
    fixed = getattr(video_processor, "num_frames", None)
    if fixed:
        return min(int(fixed), frames)
    least, most = (getattr(video_processor, name, None) for name in ("min_frames", "max_frames"))
    wanted = math.floor(duration_s * float(getattr(video_processor, "fps", None) or _FPS))
    return min(max(wanted, int(least or _FEWEST)), min(int(most or _MOST), _MOST), frames)


def read_clip(processor: ProcessorMixin, path: str, where: str) -> tuple[np.ndarray, VideoMetadata]:
    """Return the frames of a clip that the model sees, [T, 3, H, W] uint8, and where in the clip they lie.

    Args:
        processor: of the model.
        path: of the video.
        where: names the row in errors.

    Raises:
        DataError: the model takes no videos, or the file cannot be read.
    """
    with _named(path, where):
        info, times_s = _moments(processor, path, where)
        seen = _reader().read(path, times_s, past_end="clamp")
    return np.ascontiguousarray(seen.pixels.transpose(0, 3, 1, 2)), _metadata(info, seen.indices)


def locate_clip(processor: ProcessorMixin, path: str, where: str) -> tuple[tuple[int, int, int], VideoMetadata]:
    """Return [T, H, W] of the frames of a clip that the model sees, and where in the clip they lie, undecoded.

    Args:
        processor: of the model.
        path: of the video.
        where: names the row in errors.

    Raises:
        DataError: the model takes no videos, or the file cannot be read.
    """
    with _named(path, where):
        info, times_s = _moments(processor, path, where)
        indices = _reader().locate(path, times_s, past_end="clamp")
    return (len(indices), info.height, info.width), _metadata(info, indices)


def _moments(processor: ProcessorMixin, path: str, where: str) -> tuple[VideoInfo, np.ndarray]:
    video_processor = getattr(processor, "video_processor", None)
    if video_processor is None or not getattr(processor, "video_token", None):
        raise DataError(
            "this model takes no videos",
            where=where,
            got=path,
            fix="Leave such rows out, or train a model with a video processor (Qwen-VL, InternVL, SmolVLM, LLaVA-OneVision).",  # noqa: E501
        )
    info = _reader().probe(path)
    return info, segment_centres(0.0, info.duration_s, frame_count(video_processor, info.duration_s, info.frames))


def _metadata(info: VideoInfo, indices: np.ndarray) -> VideoMetadata:
    from transformers.video_utils import VideoMetadata

    return VideoMetadata(
        total_num_frames=info.frames, fps=info.fps, width=info.width, height=info.height, duration=info.duration_s,
        video_backend=info.backend, frames_indices=indices.tolist(),
    )  # fmt: skip


@contextmanager
def _named(path: str, where: str) -> Iterator[None]:
    """Let errors of the reader name the row."""
    try:
        yield
    except DataError as error:
        if error.where == where:
            raise
        raise DataError(f"{error.what}: {path}", where=where, got=error.got, fix=error.fix) from error
