"""Videos of a conversation: frames by the shared reader, as the model's own video processor wants them."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hfvla.data.video import VideoReader
from hfvla.data.video.sampling import segment_centres
from hfvla.errors import DataError

if TYPE_CHECKING:
    from transformers import ProcessorMixin
    from transformers.video_utils import VideoMetadata

__all__ = ["check_kinds", "frame_count", "read_clip"]

_FPS, _FEWEST, _MOST = 2.0, 4, 32  # where a video processor does not say


@cache
def _reader() -> VideoReader:
    return VideoReader(threads=1)  # a worker of a data loader is one of several


def check_kinds(processor: ProcessorMixin, images: bool) -> None:
    """Refuse pictures beside videos where a processor has one name for both, and one would take the other's place.

    Args:
        processor: of the model.
        images: whether there are pictures beside the videos.

    Raises:
        ValueError: it has, as SmolVLM's.
    """
    parts = (processor.image_processor, processor.video_processor)
    names = [set(getattr(part, "model_input_names", ())) for part in parts]
    if images and names[0] & names[1]:
        raise ValueError("pictures and videos in one batch, which this model cannot take")


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
    from transformers.video_utils import VideoMetadata

    video_processor = getattr(processor, "video_processor", None)
    if video_processor is None or not getattr(processor, "video_token", None):
        raise DataError(
            "this model takes no videos",
            where=where,
            got=path,
            fix="Leave such rows out, or train a model with a video processor (Qwen-VL, InternVL, SmolVLM, LLaVA-OneVision).",  # noqa: E501
        )
    try:
        info = _reader().probe(path)
        count = frame_count(video_processor, info.duration_s, info.frames)
        seen = _reader().read(path, segment_centres(0.0, info.duration_s, count), past_end="clamp")
    except DataError as error:
        raise DataError(f"{error.what}: {path}", where=where, got=error.got, fix=error.fix) from error
    metadata = VideoMetadata(
        total_num_frames=info.frames, fps=info.fps, width=info.width, height=info.height, duration=info.duration_s,
        video_backend=seen.backend, frames_indices=seen.indices.tolist(),
    )  # fmt: skip
    return np.ascontiguousarray(seen.pixels.transpose(0, 3, 1, 2)), metadata
