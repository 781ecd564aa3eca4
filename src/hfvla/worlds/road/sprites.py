"""What appears at a station, as small pictures with a mask: the gantry and whoever crosses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from hfvla.worlds.road.clip import Station
from hfvla.worlds.road.font import GLYPH_HEIGHT, text_mask
from hfvla.worlds.road.holdout import LIGHTS, Colour, Layout

__all__ = ["BASE_SIZE", "Sprite", "draw_gantry", "draw_oncoming", "draw_vehicle", "paste"]

BASE_SIZE = 96
"""Side of the picture in whose pixels all sizes here are given."""

GANTRY_HEIGHT = 47
LIT: dict[str, Colour] = {"red": (245, 35, 30), "yellow": (250, 215, 30), "green": (30, 220, 80)}
_DARK, _GLASS, _WHEEL, _SKIN = (28, 28, 30), (170, 205, 225), (20, 20, 22), (215, 170, 140)
_VEHICLE_SIZES = {"bus": (52, 30), "truck": (50, 32), "car": (38, 19), "motorbike": (26, 28), "pedestrian": (30, 36)}


@dataclass(frozen=True)
class Sprite:
    """A small picture.

    Attributes:
        pixels: [h, w, 3] uint8.
        mask: [h, w, 1] bool; True = drawn.
    """

    pixels: np.ndarray
    mask: np.ndarray


class _Sheet:
    """Draws in units of `BASE_SIZE` on a transparent sheet of any pixel size."""

    def __init__(self, width: float, height: float, unit: float) -> None:
        self.unit = unit
        self.image = Image.new("RGBA", (max(round(width * unit), 1), max(round(height * unit), 1)))
        self._draw = ImageDraw.Draw(self.image)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        u = self.unit
        self._draw.rectangle((x0 * u, y0 * u, max(x1 * u - 1, x0 * u), max(y1 * u - 1, y0 * u)), fill=colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        u = self.unit
        self._draw.ellipse(((x - radius) * u, (y - radius) * u, (x + radius) * u, (y + radius) * u), fill=colour)

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, width: float) -> None:
        u = self.unit
        self._draw.line((x0 * u, y0 * u, x1 * u, y1 * u), fill=colour, width=max(1, round(width * u)))

    def write(self, text: str, x: float, y: float, colour: Colour, scale: int) -> None:
        """Write a text around the point (x, y)."""
        ink = text_mask(text, scale)
        left, top = round(x * self.unit - ink.shape[1] / 2), round(y * self.unit - ink.shape[0] / 2)
        self.image.paste(colour, (left, top), Image.fromarray(ink.astype(np.uint8) * 255))

    def sprite(self, *, flip: bool = False) -> Sprite:
        array = np.asarray(self.image)
        array = array[:, ::-1] if flip else array
        return Sprite(np.ascontiguousarray(array[..., :3]), np.ascontiguousarray(array[..., 3:] > 127))


def paste(frame: np.ndarray, sprite: Sprite, x: int, y: int) -> None:
    """Draw a sprite onto a frame [H, W, 3] in place, its upper left corner at (x, y); what lies outside is cut."""
    height, width = sprite.mask.shape[:2]
    y0, y1, x0, x1 = max(y, 0), min(y + height, frame.shape[0]), max(x, 0), min(x + width, frame.shape[1])
    if y0 < y1 and x0 < x1:
        inside = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
        np.copyto(frame[y0:y1, x0:x1], sprite.pixels[inside], where=sprite.mask[inside])


def draw_gantry(station: Station, layout: Layout, size: int) -> Sprite:
    """Draw the gantry of a station over the full width of the picture: light, speed limit and town board."""
    unit = size / BASE_SIZE
    sheet = _Sheet(BASE_SIZE, GANTRY_HEIGHT, unit)
    sheet.box(0, 1, BASE_SIZE, 4, (120, 122, 126))
    _draw_limit(sheet, station.limit, layout.limit * BASE_SIZE)
    _draw_board(sheet, station.town, layout.board * BASE_SIZE)
    _draw_light(sheet, station.light, layout.light * BASE_SIZE)
    return sheet.sprite()


def _draw_light(sheet: _Sheet, colour: str, x: float) -> None:
    sheet.box(x - 10, 2, x + 10, 45, _DARK)
    for place, name in enumerate(LIGHTS):
        y = 9.5 + 14 * place
        if name == colour:
            sheet.disc(x, y, 8, LIT[name])
        else:
            sheet.disc(x, y, 4.5, (62, 62, 62))


def _draw_limit(sheet: _Sheet, limit: str, x: float) -> None:
    sheet.disc(x, 18, 15.5, (205, 25, 30))
    sheet.disc(x, 18, 13, (250, 250, 250))
    sheet.write(limit, x, 18.5, (10, 10, 10), max(1, int(2 * sheet.unit)))


def _draw_board(sheet: _Sheet, town: str, x: float) -> None:
    scale = max(1, int(sheet.unit))
    half = (text_mask(town, scale).shape[1] / 2 + 2 * scale) / sheet.unit
    tall = (GLYPH_HEIGHT + 3) * scale / sheet.unit
    x = min(max(x, half), BASE_SIZE - half)
    sheet.box(x - half, GANTRY_HEIGHT - tall - 1, x + half, GANTRY_HEIGHT, (10, 70, 45))
    sheet.write(town, x, GANTRY_HEIGHT - tall / 2 - 0.5, (250, 250, 250), scale)


@lru_cache(maxsize=512)
def draw_vehicle(kind: str, body: Colour, from_left: bool, size: int) -> Sprite:
    """Draw whoever crosses, heading right when they come from the left."""
    width, height = _VEHICLE_SIZES[kind]
    sheet = _Sheet(width, height, size / BASE_SIZE)
    _DRAW[kind](sheet, body)
    return sheet.sprite(flip=not from_left)


@lru_cache(maxsize=8)
def draw_oncoming(size: int) -> Sprite:
    """Draw a white car that comes towards us."""
    sheet = _Sheet(18, 13, size / BASE_SIZE)
    sheet.box(3, 0, 15, 6, (238, 238, 240))
    sheet.box(4, 1, 14, 5, (40, 50, 60))
    sheet.box(0, 5, 18, 11, (238, 238, 240))
    sheet.box(1, 6, 5, 9, (255, 235, 130))
    sheet.box(13, 6, 17, 9, (255, 235, 130))
    sheet.box(1, 11, 4, 13, _WHEEL)
    sheet.box(14, 11, 17, 13, _WHEEL)
    return sheet.sprite()


def _bus(sheet: _Sheet, body: Colour) -> None:
    sheet.box(0, 0, 52, 26, body)
    for x in range(2, 40, 8):
        sheet.box(x, 4, x + 6, 12, _GLASS)
    sheet.box(43, 3, 52, 15, _GLASS)
    sheet.box(0, 16, 52, 18, (250, 250, 250))
    sheet.box(49, 19, 52, 23, (255, 240, 120))
    sheet.disc(11, 25, 4.5, _WHEEL)
    sheet.disc(41, 25, 4.5, _WHEEL)


def _truck(sheet: _Sheet, body: Colour) -> None:
    sheet.box(0, 0, 34, 27, (206, 206, 200))
    sheet.box(0, 6, 34, 9, (130, 130, 130))
    sheet.box(0, 15, 34, 18, (130, 130, 130))
    sheet.box(36, 8, 50, 27, body)
    sheet.box(42, 10, 50, 17, _GLASS)
    sheet.box(47, 20, 50, 24, (255, 240, 120))
    for x in (7, 17, 42):
        sheet.disc(x, 27, 4.5, _WHEEL)


def _car(sheet: _Sheet, body: Colour) -> None:
    sheet.box(8, 0, 28, 9, body)
    sheet.box(10, 2, 17, 8, _GLASS)
    sheet.box(19, 2, 27, 8, _GLASS)
    sheet.box(0, 7, 38, 15, body)
    sheet.box(35, 8, 38, 12, (255, 240, 120))
    sheet.disc(8, 15, 4, _WHEEL)
    sheet.disc(29, 15, 4, _WHEEL)


def _motorbike(sheet: _Sheet, body: Colour) -> None:
    sheet.disc(5, 22, 5, _WHEEL)
    sheet.disc(21, 22, 5, _WHEEL)
    sheet.box(5, 15, 21, 20, body)
    sheet.line(21, 21, 17, 10, (60, 60, 60), 2)
    sheet.box(8, 6, 15, 17, (70, 75, 100))
    sheet.disc(12, 4, 3.6, (30, 80, 160))
    sheet.box(21, 11, 24, 15, (255, 240, 120))


def _pedestrian(sheet: _Sheet, body: Colour) -> None:
    for x in range(0, 30, 8):
        sheet.box(x, 31, x + 5, 36, (245, 245, 245))
    sheet.line(15, 20, 10, 33, (45, 45, 70), 3)
    sheet.line(15, 20, 20, 33, (45, 45, 70), 3)
    sheet.box(11, 9, 19, 21, body)
    sheet.line(18, 11, 24, 17, _SKIN, 2)
    sheet.disc(15, 5, 4, _SKIN)
    sheet.box(8, 10, 11, 18, (150, 110, 60))


_DRAW = {"bus": _bus, "truck": _truck, "car": _car, "motorbike": _motorbike, "pedestrian": _pedestrian}
