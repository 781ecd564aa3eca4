"""Recorded clocks as whole nanoseconds, whatever unit they were written in, and seconds from an episode's start.

Times since 1970 come as s, ms, us or ns, and the unit shows in their size: between 2001 and 2100 the four ranges do
not touch. A time outside of them all is refused unless its unit is named. Nanoseconds are whole numbers, so that no
time is rounded before the episode's start is taken off; what is left is float64 seconds to the microsecond, the most
that seconds since 1970 hold in float64. A float32 holds them to 128 s and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Literal

import numpy as np

from hfvla.data.sources.census import UnusableError

__all__ = ["EARLIEST_S", "Clock", "find_unit", "parse_times", "seconds_since", "to_nanoseconds"]

Clock = Literal["auto", "s", "ms", "us", "ns"]
"""Unit of a clock; "auto" for times since 1970, whose size tells the unit."""

_PER_UNIT = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
EARLIEST_S, _LATEST_S = 978_307_200, 4_102_444_800  # 2001 and 2100
_MOST_NS = 2**62


def find_unit(first: float, last: float, clock: Clock, where: str) -> str:
    """Return "s", "ms", "us" or "ns".

    Args:
        first: earliest time of the series.
        last: latest time of the series.
        clock: the unit, or "auto".
        where: names the series in errors.

    Raises:
        UnusableError: with "auto", a time that is none since 1970 in any unit, or two units in one series.
    """
    if clock != "auto":
        return clock
    found = []
    for time in (first, last):
        units = [unit for unit, scale in _PER_UNIT.items() if EARLIEST_S <= time * (scale / 1e9) < _LATEST_S]
        if not units:
            raise UnusableError(
                "clock of an unknown unit",
                f"{where}: {time} is no time since 1970 in s, ms, us or ns; name the unit if it is another clock",
            )
        found += units
    if found[0] != found[1]:
        raise UnusableError("two clock units in one series", f"{where}: {first} in {found[0]}, {last} in {found[1]}")
    return found[0]


def to_nanoseconds(times: np.ndarray, clock: Clock, where: str) -> np.ndarray:
    """Turn an array of times into [N] int64 nanoseconds.

    Args:
        times: [N] integers or float64, at least one.
        clock: their unit, or "auto".
        where: names the series in errors.

    Raises:
        UnusableError: not a row of numbers, float32, a time that is not finite or too large, or see `find_unit`.
    """
    times = np.asarray(times)
    if times.ndim != 1 or times.dtype.kind not in "iuf" or not len(times):
        raise UnusableError("not a series of times", f"{where}: {times.dtype} of shape {times.shape}")
    if times.dtype.kind == "f" and times.dtype.itemsize < 8:
        raise UnusableError("times are not float64", f"{where}: {times.dtype} holds seconds since 1970 to 128 s")
    bad = np.flatnonzero(~np.isfinite(times))
    if bad.size:
        raise UnusableError("a time is not finite", f"{where}: sample {bad[0]}")
    scale = _PER_UNIT[find_unit(float(times.min()), float(times.max()), clock, where)]
    if float(np.abs(times.astype(np.float64)).max()) * scale > _MOST_NS:
        raise UnusableError("a time is too large", f"{where}: {times.max()}, read as {clock}")
    if times.dtype.kind == "f":
        return np.rint(times * float(scale)).astype(np.int64)
    return times.astype(np.int64) * scale


def parse_times(texts: Sequence[str], clock: Clock, where: str) -> np.ndarray:
    """Turn written times into [N] int64 nanoseconds, without passing through a float.

    Args:
        texts: decimal numbers, at least one.
        clock: their unit, or "auto".
        where: names the series in errors.

    Raises:
        UnusableError: a text that is no finite number, a time that is too large, or see `find_unit`.
    """
    times = []
    for text in texts:
        try:
            if "_" in text or not text.isascii():  # Python itself takes 1_0 for ten
                raise InvalidOperation
            times.append(Decimal(text.strip()))
        except InvalidOperation:
            raise UnusableError("not a time", f"{where}: {text!r}") from None
        if not times[-1].is_finite():
            raise UnusableError("a time is not finite", f"{where}: {text!r}")
    scale = _PER_UNIT[find_unit(float(min(times)), float(max(times)), clock, where)]
    if max(abs(time) for time in times) > Decimal(_MOST_NS) / scale:
        raise UnusableError("a time is too large", f"{where}: {max(times):.6E}, read as {clock}")
    return np.array([int((time * scale).to_integral_value()) for time in times], dtype=np.int64)


def seconds_since(times_ns: np.ndarray, start_ns: int) -> np.ndarray:
    """Return [N] float64 seconds from `start_ns`, to the microsecond."""
    return np.round((times_ns - start_ns) / 1e9, 6)
