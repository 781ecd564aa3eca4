"""Sensor windows of other episodes at the same step: right in kind and timing, and about something else."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hfvla.data.rows.columns import column
from hfvla.data.signals.sensor_loader import SensorSamples
from hfvla.errors import DataError
from hfvla.models.sensor_vla.batches import load_windows

if TYPE_CHECKING:
    from hfvla.models.sensor_vla.processing_sensor_vla import SensorVLAProcessor

__all__ = ["DonorWindows", "donor_rows"]


def _episodes(rows: Any, left_out: Collection[int] = ()) -> dict[str, list[tuple[int, int]]]:
    """Return (index of the step, row number) of every row with a sensor, ascending, by episode."""
    found: dict[str, list[tuple[int, int]]] = {}
    columns = zip(*(column(rows, name) for name in ("episode", "index", "sensor")), strict=True)
    for number, (episode, index, sensor) in enumerate(columns):
        if sensor and number not in left_out:
            found.setdefault(episode, []).append((index, number))
    return {episode: sorted(steps) for episode, steps in found.items()}


def donor_rows(rows: Any, seed: int, unreadable: Collection[int] = ()) -> dict[int, int]:
    """Return for each row with a sensor the row of another episode, at the same step or the last before it.

    Args:
        rows: a `datasets.Dataset` of `action_features`.
        seed: of which episode gives to which.
        unreadable: rows that neither give nor get.

    Returns:
        `dict`: donor by row number; empty where there are not two episodes.
    """
    episodes = _episodes(rows, unreadable)
    if len(episodes) < 2:
        return {}
    order = list(np.random.default_rng(seed).permutation(sorted(episodes)))
    donors = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    pairs = {}
    for episode, steps in episodes.items():
        given = episodes[str(donors[episode])]
        indices = [index for index, _ in given]
        for index, number in steps:
            pairs[number] = given[max(0, bisect_right(indices, index) - 1)][1]
    return pairs


class DonorWindows:
    """The recorded windows of a set's episodes, for a policy that is to be given those of another episode.

    Args:
        processor: reads the windows.
        rows: a `datasets.Dataset` of `action_features`.

    Raises:
        DataError: no row has a sensor.
    """

    def __init__(self, processor: SensorVLAProcessor, rows: Any) -> None:
        self._processor, self._rows = processor, rows
        self._episodes = list(_episodes(rows).values())
        if not self._episodes:
            raise DataError("no row has a sensor, so there is no window to shuffle in")
        self._chosen = self._episodes[0]

    def choose(self, generator: np.random.Generator) -> None:
        """Draw the episode that gives its windows from now on."""
        self._chosen = self._episodes[int(generator.integers(len(self._episodes)))]

    def at(self, time_s: float) -> SensorSamples:
        """Return the window that the episode had at this time or last before it, moved to end at `time_s`."""
        times_s = [self._rows[number]["timestamp"] for _, number in self._chosen]
        place = max(0, int(np.searchsorted(times_s, time_s + 1e-6, side="right")) - 1)
        row: Mapping[str, Any] = self._rows[self._chosen[place][1]]
        window = load_windows(self._processor, [row])[0]
        assert window is not None
        return SensorSamples(window.times_s - row["sensor"]["end_s"] + time_s, window.values)
