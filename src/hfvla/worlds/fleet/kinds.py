"""Whole kinds of places and of actions that training can be kept from: how far does what it learned carry?

`split: test` holds out words and templates of kinds that training shows. Here a kind is gone altogether: all names,
parts and signs of a place, all verbs of an action. Which ones is decided by a hash of their keys, by nobody's choice.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Literal

from hfvla.worlds.fleet.actions import ACTIONS
from hfvla.worlds.fleet.places import environments

__all__ = ["ACTION_SHARE", "PLACE_SHARE", "Kinds", "of_kinds", "unseen_actions", "unseen_places"]

PLACE_SHARE = 0.15
ACTION_SHARE = 0.20

Kinds = Literal["all", "seen", "unseen"]
"""Which tasks are drawn: all; those whose place and action both stay in training; those that have one left out."""


def _first(keys: list[str], share: float) -> frozenset[str]:
    ranked = sorted(keys, key=lambda key: hashlib.sha256(f"kind {key}".encode()).digest())
    return frozenset(ranked[: round(share * len(ranked))])


@cache
def unseen_places() -> frozenset[str]:
    """Return the keys of the places that `kinds: seen` never shows."""
    return _first(list(environments()), PLACE_SHARE)


@cache
def unseen_actions() -> frozenset[str]:
    """Return the keys of the actions that `kinds: seen` never asks for."""
    return _first(list(ACTIONS), ACTION_SHARE)


def of_kinds(kinds: Kinds, place: str, action: str) -> bool:
    """Tell whether a task at a place, with an action, is among the kinds that are drawn."""
    if kinds == "all":
        return True
    return (kinds == "unseen") == (place in unseen_places() or action in unseen_actions())
