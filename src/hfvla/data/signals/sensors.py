"""A window of T evenly spaced points that ends at a given time, from a time-stamped series of sensor samples.

Times are float64 seconds of one clock: a float32 holds the seconds since 1970 to 128 s only. No point uses a sample
after the window's end, so that a recorded window is what a live robot would have had.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hfvla.errors import DataError

__all__ = ["SensorSeries", "SensorWindow", "window_times"]

Method = Literal["previous", "linear"]

# Seconds since 1970 in float64 are 2.4e-7 apart: a sample at the point's own time must not be missed by rounding.
_ROUNDING_S = 1e-6


@dataclass(frozen=True)
class SensorWindow:
    """Points of a window, oldest first.

    Attributes:
        values: [T, C] float32; NaN where the mask is False, so that a forgotten mask shows.
        mask: [T] bool; True = measured.
        times: [T] float64, seconds.
    """

    values: np.ndarray
    mask: np.ndarray
    times: np.ndarray


def window_times(end_s: float, points: int, rate_hz: float) -> np.ndarray:
    """Return [T] float64 seconds: `points` times, 1 / `rate_hz` apart, the last of which is `end_s`.

    Raises:
        DataError: fewer than one point, a rate that is not positive, or an end that is not finite.
    """
    if points < 1 or not rate_hz > 0 or not np.isfinite(end_s):
        raise DataError(
            "window of a sensor",
            got={"end_s": end_s, "points": points, "rate_hz": rate_hz},
            expected="a finite end, 1 point or more and a positive rate",
        )
    return end_s - np.arange(points - 1, -1, -1, dtype=np.float64) / rate_hz


class SensorSeries:
    """Samples of one sensor over one episode; checked once, then cut into windows.

    Args:
        times: [N] float64, seconds, never falling; of equal times the last sample counts.
        values: [N, C]; one channel may be [N].
        name: of the episode and sensor, for errors.

    Raises:
        DataError: times that are not float64, fall or are not finite; no sample; lengths that differ; values that are
            not finite, named by sample and channel.
    """

    def __init__(self, times: np.ndarray, values: np.ndarray, name: str = "sensor") -> None:
        times, values = np.asarray(times), np.asarray(values)
        values = values[:, None] if values.ndim == 1 else values
        if times.dtype != np.float64:
            raise DataError("type of the times", where=name, got=str(times.dtype), expected="float64 seconds")
        if times.ndim != 1 or values.ndim != 2 or len(times) != len(values) or not len(times):
            raise DataError(
                "times and values do not fit",
                where=name,
                got=(times.shape, values.shape),
                expected="[N] and [N, C] with N > 0",
            )
        falls = np.flatnonzero(~np.isfinite(times) | (np.diff(times, prepend=times[0]) < 0))
        if len(falls):
            raise DataError(
                f"time of sample {falls[0]} falls or is not finite", where=name, got=float(times[falls[0]])
            )
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            sample, channel = map(int, bad[0])
            raise DataError(
                f"{len(bad)} values are not finite, the first in sample {sample}, channel {channel}",
                where=name,
                got=float(values[sample, channel]),
            )
        self.times, self.values, self.name = times, values, name

    def window(
        self,
        end_s: float,
        points: int,
        rate_hz: float,
        *,
        tolerance_s: float,
        method: Method = "previous",
        on_gap: Literal["mask", "error"] = "mask",
    ) -> SensorWindow:
        """Cut the window that ends at `end_s`.

        Args:
            end_s: time of the last point; samples after it are not used.
            points: T.
            rate_hz: points a second.
            tolerance_s: oldest sample that a point may stand for; the point is a gap if its last sample is older.
            method: "previous" holds the last sample; "linear" goes on a straight line to the next one, where that is
                not after `end_s` nor further than `tolerance_s` from the last, else holds.
            on_gap: "mask" gaps, or refuse them with an "error".

        Raises:
            DataError: gaps with "error", with the clocks' range; a bad argument.
        """
        if method not in {"previous", "linear"} or on_gap not in {"mask", "error"} or not tolerance_s >= 0:
            raise DataError(
                "resampling", where=self.name, got={"method": method, "on_gap": on_gap, "tolerance_s": tolerance_s}
            )
        times = window_times(end_s, points, rate_hz)
        known = int(np.searchsorted(self.times, end_s, side="right"))  # samples not after the end
        # [T]; -1 before the first sample. Not beyond `known`, so that the end itself is exact.
        last = np.searchsorted(self.times[:known], times + _ROUNDING_S, side="right") - 1
        held = np.maximum(last, 0)
        mask = (last >= 0) & (times - self.times[held] <= tolerance_s)
        if on_gap == "error" and not mask.all():
            self._refuse(times, mask, tolerance_s)
        values = np.full((points, self.values.shape[1]), np.nan, dtype=np.float64)
        values[mask] = self.values[held[mask]]
        if method == "linear" and mask.any():
            self._interpolate(values, times, mask, held, known, tolerance_s)
        return SensorWindow(values.astype(np.float32), mask, times)

    def _interpolate(
        self, values: np.ndarray, times: np.ndarray, mask: np.ndarray, held: np.ndarray, known: int, tolerance_s: float
    ) -> None:
        following = np.minimum(held + 1, known - 1)
        gap = self.times[following] - self.times[held]
        between = np.flatnonzero(mask & (gap > 0) & (gap <= tolerance_s))
        first, second = held[between], following[between]
        share = ((times[between] - self.times[first]) / gap[between]).clip(0.0, 1.0)[:, None]
        values[between] = self.values[first] * (1.0 - share) + self.values[second] * share

    def _refuse(self, times: np.ndarray, mask: np.ndarray, tolerance_s: float) -> None:
        first, last = float(self.times[0]), float(self.times[-1])
        gap = float(times[~mask][0])
        what = (
            f"{int((~mask).sum())} of {len(mask)} points have no sample within {tolerance_s} s, the first at {gap} s"
        )
        if not mask.any() and (times[-1] < first or times[0] > last):
            what = f"the clocks do not overlap: the window is {float(times[0])} to {float(times[-1])} s"
        raise DataError(
            what,
            where=self.name,
            got=f"samples from {first} to {last} s",
            fix="Check that both clocks count the same seconds, widen tolerance_s, or mask the gaps",
        )
