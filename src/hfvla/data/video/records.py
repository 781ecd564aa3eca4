"""What the video reader hands out, and the frame table that turns a timestamp into a frame."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hfvla.errors import DataError

__all__ = ["TOLERANCE_S", "FrameRequest", "PastEnd", "Timeline", "VideoFrames", "VideoInfo"]

TOLERANCE_S = 1e-6
"""A timestamp this little before a frame counts as on it: annotations are rounded to microseconds, floats to less."""

PastEnd = Literal["error", "clamp"]


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        duration_s: from the first frame's appearance to the last one's end.
        frames: number of frames that are shown.
        fps: frames over duration; an average where the rate varies.
        width: of a frame as shown, after rotation.
        height: of a frame as shown, after rotation.
        rotation: degrees counter-clockwise (0, 90, 180, 270) that stored frames are turned by to be shown upright.
        backend: the decoder that read it.
        start_s: the first frame's time on the file's own clock; every other time here counts from it.
        codec: e.g. "h264".
        pixel_format: e.g. "yuv420p".
        interlaced: whether a frame is two half pictures, taken one after the other.
        mirrored: whether stored frames change left and right, before they are turned, to be shown.
    """

    duration_s: float
    frames: int
    fps: float
    width: int
    height: int
    rotation: int
    backend: str
    start_s: float
    codec: str
    pixel_format: str
    interlaced: bool
    mirrored: bool = False


@dataclass(frozen=True)
class FrameRequest:
    """Frames of one file, for `VideoReader.read_many`.

    Attributes:
        path: video file.
        times_s: seconds from the first frame.
        short_side: scale down to this short side, in pixels.
    """

    path: str | os.PathLike[str]
    times_s: Sequence[float] | np.ndarray
    short_side: int | None = None


@dataclass(frozen=True)
class VideoFrames:
    """Frames in the order their timestamps were asked for.

    Attributes:
        pixels: [T, H, W, 3] uint8, RGB, upright.
        times_s: [T] float64; when each frame appeared, at or before the timestamp asked for.
        indices: [T] int64; each frame's number in the order of display.
        clamped: how many timestamps lay past the end and got the last frame (only with `past_end="clamp"`).
        backend: the decoder that read them.
    """

    pixels: np.ndarray
    times_s: np.ndarray
    indices: np.ndarray
    clamped: int
    backend: str


@dataclass(frozen=True)
class Timeline:
    """Every frame of a video in the order of display, read from its packets without decoding.

    Attributes:
        pts: [N] int64, ascending, in `tick_s` units; what a decoder stamps each frame with.
        times_s: [N] float64, from the first frame on.
        key_pts: [K] int64, ascending; packets that decoding can start from.
        key_dts: [K] int64; where their decoding starts, in decoding order.
        duration_s: end of the last frame.
        start_s: the first frame's time on the file's own clock.
        seekable: False when packets carry no times; then frames are found by decoding from the start.
        open_groups: True when frames after a key packet are shown before it (x265 does this unasked).
    """

    pts: np.ndarray
    times_s: np.ndarray
    key_pts: np.ndarray
    key_dts: np.ndarray
    duration_s: float
    start_s: float
    seekable: bool = True
    open_groups: bool = False

    def __len__(self) -> int:
        return len(self.pts)

    def select(
        self, times_s: Sequence[float] | np.ndarray, *, where: str, past_end: PastEnd = "error"
    ) -> tuple[np.ndarray, int]:
        """Find the frame on display at each time: the last with `frame time <= t + TOLERANCE_S`.

        The last frame stays on display up to and including `duration_s`.

        Args:
            times_s: [T] seconds; any order, repeats allowed.
            where: the file, for errors.
            past_end: "clamp" gives the last frame for a time past the end, and counts it.

        Returns:
            [T] int64 frame numbers, and how many were clamped.

        Raises:
            DataError: no timestamp, not a finite number, negative, or past the end.
        """
        times = _as_times(times_s, where)
        if (times < -TOLERANCE_S).any():
            raise DataError(
                "a timestamp is negative",
                where=where,
                got=_first(times[times < -TOLERANCE_S]),
                expected=f"seconds from 0 to {self.duration_s:.6f}",
                fix="Timestamps count from the video's first frame.",
            )
        past = times > self.duration_s + TOLERANCE_S
        if past.any() and past_end == "error":
            raise DataError(
                f"{int(past.sum())} of {len(times)} timestamps lie past the end",
                where=where,
                got=_first(times[past]),
                expected=f"seconds from 0 to {self.duration_s:.6f} ({len(self)} frames)",
                fix='Correct the timestamp, or read with past_end="clamp", which counts such frames.',
            )
        indices = np.searchsorted(self.times_s, times + TOLERANCE_S, side="right") - 1
        return np.maximum(indices, 0).astype(np.int64), int(past.sum())

    def start_key(self, index: int) -> int:
        """Return which key packet decoding starts from to reach a frame; 0 when there is none before it."""
        return max(int(np.searchsorted(self.key_pts, self.pts[index], side="right")) - 1, 0)


def _as_times(times_s: Any, where: str) -> np.ndarray:
    expected = "at least one finite number of seconds, one-dimensional"
    try:
        times = np.asarray(times_s, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError("timestamps are not numbers", where=where, got=times_s, expected=expected) from error
    if times.ndim != 1 or times.size == 0:
        raise DataError("no list of timestamps", where=where, got=times_s, expected=expected)
    if not np.isfinite(times).all():
        raise DataError(
            "a timestamp is not finite", where=where, got=_first(times[~np.isfinite(times)]), expected=expected
        )
    return times


def _first(values: np.ndarray) -> float:
    return float(values[0])
