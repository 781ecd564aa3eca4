"""The frames of a clip, drawn from its facts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hfvla.worlds.road.clip import HOLD_SHARE, STATIONS, Clip, Station
from hfvla.worlds.road.scenery import DASH_PHASES, draw_roads, rain_masks, sprite_in_weather
from hfvla.worlds.road.sprites import Sprite, draw_gantry, draw_oncoming, draw_vehicle, paste

__all__ = ["ClipFrames"]

_SLIDE_SHARE = (1 - HOLD_SHARE) / 4  # of a quarter, before and after the hold; as much plain road follows
_FEET = 0.97  # lower edge of whoever crosses, as a share of the picture
_RAIN = np.array((190, 200, 210), dtype=np.uint8)


class _StationPicture:
    """A station's sprites and where they stand as time goes on."""

    def __init__(self, station: Station, clip: Clip, size: int) -> None:
        self.station, self.size = station, size
        gantry = draw_gantry(station, clip.layout, size)
        self.gantry = sprite_in_weather(gantry, clip.weather, 0.25)
        from_left = station.side == "left"
        self.vehicle = sprite_in_weather(draw_vehicle(station.vehicle, station.body, from_left, size), clip.weather)
        self.oncoming: Sprite | None = sprite_in_weather(draw_oncoming(size), clip.weather, 0.4)
        if not station.oncoming:
            self.oncoming = None

    def draw(self, frame: np.ndarray, moment: float) -> None:
        """Draw onto a frame at `moment`, in quarters of the clip from the station's middle (-0.5 to 0.5)."""
        size, half = self.size, HOLD_SHARE / 2
        away = min(max(abs(moment) - half, 0.0) / _SLIDE_SHARE, 1.0)  # 0 in the hold, 1 when gone
        if away == 1.0:
            return
        paste(frame, self.gantry, 0, -round(away * self.gantry.mask.shape[0]))
        height, width = self.vehicle.mask.shape[:2]
        progress = moment / HOLD_SHARE + 0.5  # 0 to 1 over the hold
        centre = 0.26 + 0.20 * progress + (-0.8 if moment < 0 else 0.8) * away
        x = centre if self.station.side == "left" else 1 - centre
        if self.oncoming is not None:
            tall, wide = self.oncoming.mask.shape[:2]
            paste(frame, self.oncoming, round((0.5 - 0.9 * away) * size - wide / 2), round(0.62 * size - tall))
        paste(frame, self.vehicle, round(x * size - width / 2), round(_FEET * size) - height)


class ClipFrames:
    """The frames of a clip, drawn when asked for.

    Args:
        clip: its facts.
        size: pixels a side.
        seconds: length.
        fps: frames a second.
    """

    def __init__(self, clip: Clip, size: int, seconds: float, fps: int) -> None:
        self.clip, self.seconds, self.fps = clip, seconds, fps
        self._roads = draw_roads(clip, size)
        self._stations = [_StationPicture(station, clip, size) for station in clip.stations]
        self._drops = rain_masks(clip, size) if clip.weather == "rain" else None

    def __len__(self) -> int:
        return max(round(self.seconds * self.fps), 1)

    def draw(self, number: int) -> np.ndarray:
        """Draw one frame: [size, size, 3] uint8, RGB."""
        frame = self._roads[number % DASH_PHASES].copy()
        share = number / self.fps / self.seconds
        place = min(int(share * STATIONS), STATIONS - 1)
        self._stations[place].draw(frame, (share - self.clip.stations[place].middle) * STATIONS)
        if self._drops is not None:
            frame[self._drops[number % len(self._drops)]] = _RAIN
        return frame

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.draw(number) for number in range(len(self)))
