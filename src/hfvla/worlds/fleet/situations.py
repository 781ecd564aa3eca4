"""What can be asked where: every (environment, move) pair, and how often each is drawn."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from hfvla.worlds.fleet.actions import ACTIONS, ZONE_ACTIONS
from hfvla.worlds.fleet.facts import Action, Environment, Facts, Move, facts_of
from hfvla.worlds.fleet.kinds import Kinds, of_kinds
from hfvla.worlds.fleet.places import environments
from hfvla.worlds.fleet.rule import Clause, deciding_clause

__all__ = ["LABEL_SHARES", "SCENE_ACTIONS", "Situation", "draw_scene_situation", "draw_situation", "situations"]

LABEL_SHARES: dict[str, float] = {
    "D": 17.0,
    "L": 14.0,
    "U": 11.0,
    "W": 11.0,
    "H": 7.0,
    "DL": 9.5,
    "LW": 6.5,
    "HL": 9.0,
    "DU": 3.0,
    "DLW": 6.5,
    "HLW": 3.5,
    "DHL": 1.0,
    "DLU": 1.0,
}
"""Per cent of text tasks by robot set (initials, sorted; U is Underwater Robot). Real data has fewer H and W."""

SCENE_ACTIONS: dict[str, tuple[str, ...]] = {
    "inspect": (
        "tall",
        "wide",
        "rough",
        "stairs",
        "underground",
        "sand",
        "paved",
        "field",
        "orchard",
        "pasture",
        "growing house",
        "wild garden",
        "compound",
        "building",
        "workplace",
        "refit",
        "warehouse",
        "water",
        "water and air",
        "bank",
    ),
    "search": (
        "tall",
        "wide",
        "rough",
        "underground",
        "sand",
        "compound",
        "refit",
        "warehouse",
        "water",
        "water and air",
        "building",
        "wild garden",
        "bank",
        "field",
        "paved",
    ),
    "map": (
        "tall",
        "wide",
        "rough",
        "underground",
        "sand",
        "compound",
        "refit",
        "warehouse",
        "water",
        "water and air",
        "building",
        "wild garden",
        "bank",
        "field",
        "paved",
    ),
    "carry": (
        "rough",
        "stairs",
        "underground",
        "sand",
        "paved",
        "field",
        "compound",
        "building",
        "crowd",
        "refit",
        "warehouse",
    ),
    "haul": (
        "rough",
        "stairs",
        "underground",
        "sand",
        "paved",
        "field",
        "compound",
        "building",
        "crowd",
        "refit",
        "warehouse",
    ),
    "reach": ("rough", "stairs", "underground", "sand", "paved", "building", "crowd", "water", "warehouse"),
}
"""Actions of scene-only tasks and the zones whose picture decides them."""

_FOCUS_ACTIONS = {
    "living": ("inspect", "assess", "survey", "monitor", "map", "count", "film", "find"),
    "system": ("inspect", "assess", "survey", "monitor", "measure"),
    "soil": ("soil_sample", "measure", "assess"),
    "contact": ("inspect", "assess", "monitor", "count"),
    "growth": ("survey", "map", "monitor", "assess", "film", "measure"),
    "equipment": ("inspect", "assess", "monitor", "measure"),
    "passage": ("inspect", "assess", "monitor", "measure"),
}
_OUTDOOR = ("tall", "wide", "rough", "sand", "paved", "field", "orchard", "pasture", "compound", "water and air")
_VIEWS = ("inspect", "assess", "survey", "monitor", "map", "film", "search", "patrol")
_CLIMBABLE = ("mountain", "hillside", "volcano", "canyon", "quarry", "rubble")
_INITIALS = {"Drone": "D", "Underwater Robot": "U", "Humanoid": "H", "Robot with Wheels": "W", "Robot with Legs": "L"}


@dataclass(frozen=True)
class Situation:
    """One thing asked at one kind of place, with its facts and the robots that the rule gives."""

    environment: Environment
    action: Action
    move: Move
    facts: Facts
    clause: Clause

    @property
    def robots(self) -> tuple[str, ...]:
        """Gold set, primary first."""
        return self.clause.robots


def _situation(place: Environment, move: Move) -> Situation:
    action = ACTIONS[move.action]
    facts = facts_of(place, action, move)
    return Situation(place, action, move, facts, deciding_clause(facts))


def _plain_moves(place: Environment) -> list[Move]:
    moves = []
    for name in ZONE_ACTIONS[place.zone]:
        if name in ("handle", "serve", "pick", "fieldwork") and name not in place.jobs:
            continue
        if name == "climb" and place.zone == "rough" and place.key not in _CLIMBABLE:
            continue
        if name == "soil_sample" or (place.zone in ("building", "workplace") and name in _FOCUS_ACTIONS["equipment"]):
            continue
        moves.append(Move(name, vantage="above" if name in ("fly_over", "airlift") else ""))
    return moves


def _moves(place: Environment) -> list[Move]:
    moves = _plain_moves(place)
    for focus in place.parts:
        moves += [Move(name, focus) for name in _FOCUS_ACTIONS.get(focus, ())]
    if place.zone in _OUTDOOR:
        allowed = ZONE_ACTIONS[place.zone]
        moves += [Move(name, vantage="above") for name in _VIEWS if name in allowed]
        moves += [
            Move(name, "living", "above") for name in ("inspect", "survey", "monitor") if "living" in place.parts
        ]
    if place.zone == "crowd":
        moves += [Move(name, vantage="above") for name in ("survey", "monitor", "film")]
    if place.zone == "water and air":
        moves += [Move(name, vantage="below") for name in ("inspect", "assess", "survey", "monitor", "film", "search")]
    return moves


@cache
def situations() -> tuple[Situation, ...]:
    """Return every situation of the vocabulary."""
    return tuple(_situation(place, move) for place in environments().values() for move in _moves(place))


@cache
def _by_label(kinds: Kinds) -> dict[str, dict[str, dict[str, list[Situation]]]]:
    """Label initials -> clause name -> environment key -> situations."""
    table: dict[str, dict[str, dict[str, list[Situation]]]] = {}
    for item in situations():
        if not of_kinds(kinds, item.environment.key, item.action.key):
            continue
        label = "".join(sorted(_INITIALS[robot] for robot in item.robots))
        clauses = table.setdefault(label, {})
        clauses.setdefault(item.clause.name, {}).setdefault(item.environment.key, []).append(item)
    return table


def draw_situation(generator: random.Random, kinds: Kinds = "all") -> Situation:
    """Draw a label by `LABEL_SHARES`, then a convention, a place and a move among those that give it.

    Labels that no task of the kinds has are left out; the others keep their shares to each other.
    """
    table = _by_label(kinds)
    shares = {label: share for label, share in LABEL_SHARES.items() if label in table}
    label = generator.choices(list(shares), list(shares.values()))[0]
    clauses = table[label]
    weights = [len(places) ** 0.5 + 1 for places in clauses.values()]
    places = clauses[generator.choices(list(clauses), weights)[0]]
    return generator.choice(places[generator.choice(list(places))])


@cache
def _by_scene(kinds: Kinds) -> dict[str, dict[str, list[Environment]]]:
    """Scene action -> scene family -> environments that show it."""
    table: dict[str, dict[str, list[Environment]]] = {}
    for name, zones in SCENE_ACTIONS.items():
        for place in environments().values():
            if place.zone in zones and of_kinds(kinds, place.key, name):
                table.setdefault(name, {}).setdefault(place.scene, []).append(place)
    return table


def draw_scene_situation(generator: random.Random, kinds: Kinds = "all") -> Situation:
    """Draw a task whose answer only the picture gives: the action first, then the scene family, then the place."""
    table = _by_scene(kinds)
    name = generator.choice(list(table))
    families = table[name]
    place = generator.choice(families[generator.choice(list(families))])
    return _situation(place, Move(name))
