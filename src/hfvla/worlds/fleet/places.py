"""Reads the place vocabulary (`places_*.py`) into `Environment` objects and checks it."""

from __future__ import annotations

from functools import cache

from hfvla.worlds.fleet import (
    places_built,
    places_farm,
    places_indoor,
    places_people,
    places_site,
    places_water,
    places_wild,
)
from hfvla.worlds.fleet.facts import ZONES, Environment, phrases

__all__ = ["environment", "environments"]

_MODULES = (places_built, places_wild, places_farm, places_site, places_indoor, places_people, places_water)
_FOCUS = ("living", "system", "soil", "contact", "growth", "equipment", "passage")
_JOBS = ("handle", "serve", "pick", "fieldwork")


def _build(zone: str, key: str, entry: dict[str, str]) -> Environment:
    parts = {"": phrases(entry.get("parts", ""))} | {name: phrases(entry[name]) for name in _FOCUS if name in entry}
    return Environment(
        key=key,
        zone=zone,
        scene=entry["scene"],
        at=entry["at"],
        through=entry["through"],
        gloss=entry["gloss"],
        names=phrases(entry["names"]),
        parts={name: values for name, values in parts.items() if values},
        signs=phrases(entry.get("signs", "")),
        jobs={name: phrases(entry[name]) for name in _JOBS if name in entry},
    )


@cache
def environments() -> dict[str, Environment]:
    """Return every environment by key.

    Raises:
        ValueError: a key occurs twice or a zone is unknown (an error in the vocabulary).
    """
    found: dict[str, Environment] = {}
    for module in _MODULES:
        for (zone, key), entry in module.PLACES.items():
            if key in found or zone not in ZONES:
                raise ValueError(f"place '{key}' occurs twice or its zone '{zone}' is unknown")
            found[key] = _build(zone, key, entry)
    return found


def environment(key: str) -> Environment:
    """Return one environment.

    Raises:
        KeyError: unknown key.
    """
    return environments()[key]
