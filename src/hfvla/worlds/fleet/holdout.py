"""Which words and templates the test split keeps for itself.

Every pool of phrases loses about 15 % of its members to the test split, chosen by a stable hash, never by the seed of
a run. A member is preferred when it shares a word with one that stays (a compound such as "boiler house stairs"
beside "metal stairs"), so that its meaning can be guessed; a phrase held out of one pool is held out of all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cache

from hfvla.worlds.fleet import pools
from hfvla.worlds.fleet.actions import ACTIONS, JOBS
from hfvla.worlds.fleet.facts import phrases
from hfvla.worlds.fleet.places import environments
from hfvla.worlds.fleet.templates import BASIC, SCENE_TEMPLATES, TEMPLATES

__all__ = ["PHRASE_SHARE", "TEMPLATE_SHARE", "held_out", "held_out_templates", "plain"]

PHRASE_SHARE = 0.15
TEMPLATE_SHARE = 0.20
_SMALL_WORDS = frozenset(
    phrases("a; an; the; of; in; on; at; to; and; for; from; by; with; it; is; s; under; into; over; out; up")
)


def _rank(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def plain(phrase: str) -> str:
    """A phrase without the marks of the vocabulary, lower case."""
    return phrase.lstrip("~*").lower()


def _words(phrase: str) -> set[str]:
    """Content words, cut to a stem of five letters."""
    return {word[:5] for word in re.findall(r"[a-z0-9]+", plain(phrase)) if word not in _SMALL_WORDS}


def _choose(pool: Iterable[str], share: float) -> set[str]:
    """About `share` of a pool, those that share a word with the rest first; at least one from five members on."""
    members = sorted(set(pool), key=_rank)
    wanted = round(share * len(members)) or int(len(members) >= 5)
    chosen: list[str] = []
    for member in members:
        rest = set().union(*(_words(other) for other in members if other != member and other not in chosen))
        if len(chosen) < wanted and _words(member) & rest:
            chosen.append(member)
    for member in members:
        if len(chosen) < wanted and member not in chosen:
            chosen.append(member)
    return set(chosen)


def _pools() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [action.verbs for action in ACTIONS.values()]
    for place in environments().values():
        found += [place.names, place.signs, *place.parts.values(), *place.jobs.values()]
    found += [
        pools.LIGHT,
        pools.HEAVY,
        pools.DEVICES,
        pools.ABOVE,
        pools.BELOW,
        pools.DISTRACTORS,
        pools.STUDIES,
        pools.SHOWN,
    ]
    found += [pools.SHOWN_SIGNS, pools.SHOWN_LIGHT, pools.SHOWN_HEAVY, *JOBS.values()]
    found += [*pools.SPECIMENS.values(), *pools.GOALS.values(), *pools.PURPOSES.values()]
    return [pool for pool in found if pool]


@cache
def held_out() -> frozenset[str]:
    """Return the phrases (without marks) that only the test split may use."""
    every = _pools()
    chosen: set[str] = set()
    for pool in every:
        chosen |= {plain(member) for member in _choose(pool, PHRASE_SHARE)}
    kept = " | ".join(sorted({plain(member) for pool in every for member in pool} - chosen))
    return frozenset(phrase for phrase in chosen if not re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", kept))


@cache
def held_out_templates() -> frozenset[str]:
    """Return the templates that only the test split may use."""
    return frozenset(
        template
        for pool in (TEMPLATES, SCENE_TEMPLATES)
        for template in sorted(set(pool) - set(BASIC), key=_rank)[: round(TEMPLATE_SHARE * len(pool))]
    )
