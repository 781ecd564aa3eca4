"""The newest samples of a live sensor, written by its driver's thread and read by a policy's."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np

from hfvla.data.signals.sensor_loader import SensorSamples
from hfvla.errors import DataError, HfvlaError

__all__ = ["SensorBuffer"]


class SensorBuffer:
    """A ring of the last `capacity` samples; safe to use from any thread.

    A push that has a fault is refused as a whole, counted in `refused`, and raises: a driver that goes on all the same
    stores nothing, so that the sensor grows stale and the policy stops.

    Shapes: N samples of a push, C channels.

    Args:
        capacity: samples kept; at least the policy's window times the sensor's rate, and some more.
        channels: C.
        name: of the sensor, for errors.

    Attributes:
        refused: number of refused pushes by reason: "shape", "not finite", "out of order".
    """

    def __init__(self, capacity: int, channels: int, name: str = "sensor") -> None:
        if capacity < 1 or channels < 1:
            raise HfvlaError("size of a sensor buffer", where=name, got=(capacity, channels), expected="1 or more")
        self.capacity, self.channels, self.name = capacity, channels, name
        self.refused: Counter[str] = Counter()
        self._times = np.empty(capacity, dtype=np.float64)
        self._values = np.empty((capacity, channels), dtype=np.float32)
        self._lock = threading.Lock()
        self._written = 0  # samples since the last clear, also those that were overwritten

    def __len__(self) -> int:
        return min(self._written, self.capacity)

    @property
    def latest_s(self) -> float | None:
        """Time of the newest sample, float64 seconds; None when empty."""
        with self._lock:
            return float(self._times[(self._written - 1) % self.capacity]) if self._written else None

    def push(self, times_s: np.ndarray | float, values: np.ndarray) -> None:
        """Append samples.

        Args:
            times_s: [N] float64 seconds on the robot's clock, or one number; never falling.
            values: [N, C], or [C] of one sample.

        Raises:
            DataError: shapes that do not fit, a number that is not finite, or a time before an earlier one.
        """
        times = np.atleast_1d(np.asarray(times_s))
        samples = np.asarray(values)
        samples = samples[None] if samples.ndim == 1 and len(times) == 1 else samples
        with self._lock:
            self._check(times, samples)
            kept = min(len(times), self.capacity)
            first = self._written + len(times) - kept
            places = np.arange(first, first + kept) % self.capacity
            self._times[places] = times[len(times) - kept :]
            self._values[places] = samples[len(times) - kept :]
            self._written += len(times)

    def _check(self, times: np.ndarray, samples: np.ndarray) -> None:
        if times.dtype != np.float64:
            raise self._refusal("shape", "type of the times", str(times.dtype), "float64 seconds")
        if times.ndim != 1 or samples.shape != (len(times), self.channels):
            expected = f"[N] and [N, {self.channels}]"
            raise self._refusal("shape", "times and values do not fit", (times.shape, samples.shape), expected)
        bad = np.flatnonzero(~(np.isfinite(times) & np.isfinite(samples).all(axis=1)))
        if len(bad):
            got = (float(times[bad[0]]), samples[bad[0]].tolist()[:8])
            raise self._refusal("not finite", f"sample {bad[0]} of {len(times)} is not finite", got, "numbers")
        if not len(times):
            return
        before = self._times[(self._written - 1) % self.capacity] if self._written else times[0]
        falls = np.flatnonzero(np.diff(times, prepend=before) < 0)
        if len(falls):
            earlier = float(before if falls[0] == 0 else times[falls[0] - 1])
            what = f"time of sample {falls[0]} of {len(times)} falls"
            raise self._refusal("out of order", what, float(times[falls[0]]), f"{earlier} s or later")

    def _refusal(self, reason: str, what: str, got: object, expected: str) -> DataError:
        self.refused[reason] += 1
        count = self.refused[reason]
        return DataError(f"{what} ({count} pushes refused: {reason})", where=self.name, got=got, expected=expected)

    def window(self, end_s: float, seconds: float) -> SensorSamples:
        """Copy the samples of a window.

        Args:
            end_s: float64 seconds; no sample is later.
            seconds: length. The last sample before the window comes along: it is what holds at the window's start.

        Returns:
            Samples, oldest first; none where there are none.

        Raises:
            DataError: the ring is too small, so that samples of this window were overwritten.
        """
        with self._lock:
            count = min(self._written, self.capacity)
            places = np.arange(self._written - count, self._written) % self.capacity
            times = self._times[places]
            start_s = end_s - seconds
            first = max(int(np.searchsorted(times, start_s, side="left")) - 1, 0)
            last = int(np.searchsorted(times, end_s, side="right"))
            if self._written > self.capacity and times[0] > start_s:
                raise DataError(
                    "the window reaches behind the oldest sample kept", where=self.name,
                    got=f"{self.capacity} samples since {float(times[0])} s", expected=f"samples since {start_s} s",
                    fix="Give the SensorBuffer a larger capacity.",
                )  # fmt: skip
            return SensorSamples(times[first:last].copy(), self._values[places[first:last]])

    def clear(self) -> None:
        """Forget all samples, as between episodes whose clocks differ."""
        with self._lock:
            self._written = 0
