"""The place that a task's words name, for a picture of it: found in the vocabulary of places, never in the answer."""

from __future__ import annotations

import re
import zlib
from functools import cache

from hfvla.data.text import task_key
from hfvla.worlds.fleet.inflect import plural
from hfvla.worlds.fleet.places import environments
from hfvla.worlds.fleet.scene import encode_png, render_scene

__all__ = ["place_in", "scene_of_task"]

_FEWEST_LETTERS = 4


@cache
def _names() -> dict[str, str | None]:
    """Return environment by name, in small letters; None where several environments have it."""
    found: dict[str, str | None] = {}
    for key, place in environments().items():
        for name in place.names:
            bare = name.removeprefix("~").lower()
            for form in {bare, bare if name.startswith("~") else plural(bare)}:
                if len(form) >= _FEWEST_LETTERS:
                    found[form] = key if found.get(form, key) == key else None
    return found


@cache
def _pattern() -> re.Pattern[str]:
    longest = sorted(map(re.escape, _names()), key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(longest)})\b", re.IGNORECASE)


def place_in(task: str) -> str | None:
    """Return the key of the environment that a task names, by its longest name; None where it names none, or two.

    Args:
        task: e.g. "Inspect the underside of the old bridge".
    """
    found = [(len(match[0]), _names()[match[0].lower()]) for match in _pattern().finditer(task)]
    known = sorted((length, key) for length, key in found if key is not None)
    if not known or (len({key for length, key in known if length == known[-1][0]}) > 1):
        return None
    return known[-1][1]


def scene_of_task(task: str, size: int) -> bytes | None:
    """Return a PNG of the place that a task names, or None; the same task gives the same picture.

    Args:
        task: its text; nothing else is looked at.
        size: pixels a side.
    """
    key = place_in(task)
    if key is None:
        return None
    return encode_png(render_scene(key, zlib.crc32(task_key(task).encode()), size))
