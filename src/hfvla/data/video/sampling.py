"""Which moments of a clip to look at: segment centres, or a window around the moments that support an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hfvla.errors import DataError

__all__ = [
    "duration_frame_count",
    "sample_times",
    "segment_centres",
    "support_frame_count",
    "support_times",
    "support_window",
]


def segment_centres(start_s: float, end_s: float, count: int) -> np.ndarray:
    """Cut [start_s, end_s] into `count` equal segments and return their middles: [count] float64, ascending.

    Raises:
        DataError: fewer than one segment, or an empty or unbounded interval.
    """
    if count < 1:
        raise DataError("no frame to place", got=count, expected="count >= 1")
    if not (math.isfinite(start_s) and math.isfinite(end_s) and end_s > start_s):
        raise DataError("no time to place frames in", got=(start_s, end_s), expected="start_s < end_s, both finite")
    return start_s + (np.arange(count, dtype=np.float64) + 0.5) * ((end_s - start_s) / count)


def duration_frame_count(duration_s: float, *, seconds_per_frame: float = 2.0, fewest: int = 4, most: int = 6) -> int:
    """Return how many frames a clip deserves: one every `seconds_per_frame`, within [fewest, most]."""
    _check_range(fewest, most)
    if not (math.isfinite(duration_s) and duration_s > 0 and seconds_per_frame > 0):
        raise DataError(
            "a clip's length is not positive", got=(duration_s, seconds_per_frame), expected="both > 0 and finite"
        )
    return min(max(math.ceil(duration_s / seconds_per_frame), fewest), most)


def support_frame_count(support_count: int, *, fewest: int = 4, most: int = 6) -> int:
    """Return clamp(2 x support_count, fewest, most), and never fewer than the support frames themselves."""
    _check_range(fewest, most)
    return max(min(max(2 * support_count, fewest), most), support_count)


def support_window(
    support_s: Sequence[float], duration_s: float, *, margin_s: float = 0.5, where: str | None = None
) -> tuple[float, float]:
    """Return [first support time - margin, last + margin], cut to the clip.

    Raises:
        DataError: no support time, or one outside [0, duration_s].
    """
    times = np.asarray(support_s, dtype=np.float64)
    if times.ndim != 1 or times.size == 0:
        raise DataError("no support frame", where=where, got=support_s, expected="at least one time in seconds")
    outside = ~((times >= 0) & (times <= duration_s))
    if outside.any():
        raise DataError(
            "a support frame lies outside the clip",
            where=where,
            got=float(times[outside][0]),
            expected=f"seconds from 0 to {duration_s:.6f}",
            fix="Correct support_frames, or check that the row names the right video.",
        )
    return max(float(times.min()) - margin_s, 0.0), min(float(times.max()) + margin_s, duration_s)


def support_times(
    support_s: Sequence[float],
    duration_s: float,
    *,
    count: int | None = None,
    margin_s: float = 0.5,
    where: str | None = None,
) -> np.ndarray:
    """Spread frames over the support window and keep every support time exactly.

    The window's segment centres are laid out, then the one nearest to each support time is moved onto it. Equal
    support times count once.

    Args:
        support_s: seconds.
        duration_s: of the clip.
        count: frames wanted; `support_frame_count` of the support times when absent.
        margin_s: the window's reach before the first and after the last support time.
        where: sample or file, for errors.

    Returns:
        [count] float64, ascending.

    Raises:
        DataError: see `support_window`; or `count` below the number of support times.
    """
    start_s, end_s = support_window(support_s, duration_s, margin_s=margin_s, where=where)
    kept = np.unique(np.asarray(support_s, dtype=np.float64))
    count = support_frame_count(len(kept)) if count is None else count
    if count < len(kept):
        raise DataError("fewer frames than support frames", where=where, got=count, expected=f"count >= {len(kept)}")
    times = segment_centres(start_s, end_s, count)
    free = np.ones(count, dtype=bool)
    for moment in kept:
        nearest = int(np.argmin(np.where(free, np.abs(times - moment), np.inf)))
        times[nearest], free[nearest] = moment, False
    return np.sort(times)


def sample_times(
    duration_s: float, support_s: Sequence[float] | None = None, *, count: int | None = None, where: str | None = None
) -> np.ndarray:
    """Return the moments to read of a clip: around its support frames when it has some, else over all of it.

    Raises:
        DataError: see `support_times`, `segment_centres` and `duration_frame_count`.
    """
    if support_s is not None and len(support_s):
        return support_times(support_s, duration_s, count=count, where=where)
    return segment_centres(0.0, duration_s, duration_frame_count(duration_s) if count is None else count)


def _check_range(fewest: int, most: int) -> None:
    if not 1 <= fewest <= most:
        raise DataError("no such range of frames", got=(fewest, most), expected="1 <= fewest <= most")
