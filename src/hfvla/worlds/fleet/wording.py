"""Chooses the words of one task: verb, object, place and tail, before a template orders them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from hfvla.worlds.fleet import pools
from hfvla.worlds.fleet.actions import ACTIONS, JOBS
from hfvla.worlds.fleet.facts import Environment
from hfvla.worlds.fleet.holdout import held_out, held_out_templates, plain
from hfvla.worlds.fleet.inflect import gerund, participle, plural, with_article
from hfvla.worlds.fleet.situations import Situation, situations
from hfvla.worlds.fleet.templates import BASIC

__all__ = ["Phrase", "Words", "choose_phrase"]

_GOAL_POOL = {
    "rough": "outdoor",
    "sand": "sand",
    "paved": "paved",
    "underground": "underground",
    "building": "indoor",
    "workplace": "indoor",
    "warehouse": "warehouse",
    "crowd": "crowd",
    "field": "farm",
    "orchard": "farm",
    "pasture": "farm",
    "growing house": "farm",
    "stairs": "stairs",
    "tall": "roof",
    "compound": "site",
    "refit": "site",
    "water": "outdoor",
}
_DEFINITE_RELATION = ("tall", "warehouse", "refit", "water and air", "water")
_NEARBY = {
    "compound": ("around", "near", "at", "outside", "along the edge of"),
    "rough": ("in", "near", "around", "at the foot of"),
    "sand": ("in", "near", "around", "on the edge of"),
    "field": ("in", "on", "throughout", "across different sections of"),
    "orchard": ("in", "throughout", "in parts of"),
    "pasture": ("on", "in", "throughout", "around"),
    "building": ("in", "inside", "throughout"),
    "warehouse": ("in", "inside"),
    "refit": ("in", "inside"),
    "underground": ("in", "inside", "deep in"),
    "bank": ("along", "near", "at", "beside"),
    "wide": ("across", "over", "throughout"),
}
_SIGN_PREFIXES = ("", "", "", "signs of ", "any ", "possible ", "potential ", "any signs of ")


class Words:
    """Draws phrases for one task, from the vocabulary of its split.

    In the test split each slot is filled from the held-out part of its pool with probability 1/2; `write_task` draws
    again until at least one is.

    Args:
        generator: source of all choices.
        test: draw for the test split.
    """

    def __init__(self, generator: random.Random, test: bool) -> None:
        self.generator, self.test = generator, test
        self.unseen: list[str] = []

    def pick(self, pool: Sequence[str]) -> str:
        """Draw a phrase; marks are kept."""
        train, held = _parts(tuple(pool))
        if not self.test or not held:
            return self.generator.choice(train)
        if self.generator.random() < 0.5:
            return self.generator.choice(train)
        phrase = self.generator.choice(held)
        self.unseen.append(plain(phrase))
        return phrase

    def template(self, pool: Sequence[str]) -> str:
        """Draw a sentence template of the split; plain imperatives come more often in training."""
        if not self.test and self.chance(0.3):
            return self.generator.choice([item for item in BASIC if item in pool])
        return self.generator.choice([item for item in pool if (item in held_out_templates()) == self.test])

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.generator.random() < probability


@cache
def _parts(pool: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A pool's members for training and those held out for the test split."""
    train = tuple(item for item in pool if plain(item) not in held_out())
    return train or pool, tuple(item for item in pool if plain(item) in held_out()) if train else ()


@dataclass
class Phrase:
    """Verb, object, place and the rest, before a template orders them."""

    verb: str
    target: str = ""
    where: str = ""
    tail: str = ""
    passive: bool = False
    noun: str = ""
    place: str = ""

    def fill(self, tail_first: bool) -> dict[str, str]:
        """Every slot that this phrase can fill."""
        rest = f"{self.tail} {self.where}" if tail_first else f"{self.where} {self.tail}"
        slots = {
            "do": f"{self.verb} {self.target} {rest}",
            "doing": f"{gerund(self.verb)} {self.target} {rest}",
        }
        if self.where:
            slots |= {
                "act": f"{self.verb} {self.target} {self.tail}",
                "acting": f"{gerund(self.verb)} {self.target} {self.tail}",
                "where": self.where,
            }
        if self.passive and self.target:
            slots["passive"] = f"{self.target} {{must}} be {participle(self.verb)} {rest}"
        if self.noun and self.target:
            slots["noun"] = f"{self.noun} of {self.target} {rest}"
        return slots


def _place(words: Words, place: Environment) -> str:
    name = words.pick(place.names)
    if words.chance(0.12):
        name = plural(name)
    if words.chance(0.3):
        adjective = words.generator.choice(pools.ADJECTIVES[place.zone].split("; "))
        if not set(adjective.split()) & set(plain(name).split()):
            name = f"~{adjective} {name[1:]}" if name.startswith("~") else f"{adjective} {name}"
    return with_article(name, words.generator.choice(("the", "the", "a")))


def _at(words: Words, place: Environment) -> str:
    return words.generator.choice((place.at, place.at, *_NEARBY.get(place.zone, ())))


def _sign(words: Words, place: Environment) -> str:
    sign = words.pick(place.signs)
    if sign.startswith(("a ", "an ", "the ", "signs ", "good ", "too ")):
        return sign
    return words.generator.choice(_SIGN_PREFIXES) + sign


def _goal(words: Words, zone: str) -> str:
    return words.pick(pools.GOALS[_GOAL_POOL[zone]])


@cache
def _owners(part: str, action: str) -> int:
    """How many different robot sets a thing leads to under an action, over all places that have it."""
    return len(
        {
            item.robots
            for item in situations()
            if item.action.key == action and any(part in values for values in item.environment.parts.values())
        }
    )


def _part_phrase(words: Words, item: Situation, phrase: Phrase, frame: str) -> None:
    place = item.environment
    part = words.pick(place.parts.get(item.move.focus) or place.parts[""])
    phrase.target = f"the {part}" if words.chance(0.8) or item.move.focus == "" else part
    omit = 0.35 if item.move.focus in ("living", "system", "soil", "contact", "growth") else 0.12
    if item.move.vantage or _owners(part, item.action.key) > 1 or plain(part) in words.unseen:
        omit = 0.0
    if not words.chance(omit):
        phrase.place = _place(words, place)
        if item.move.focus == "" and words.chance(0.1) and len(phrase.place.split()) < 4:
            phrase.target = f"{phrase.place}{chr(39) if phrase.place.endswith('s') else chr(39) + 's'} {part}"
        elif place.zone in _DEFINITE_RELATION and words.chance(0.3):
            phrase.target = f"{phrase.target} of {phrase.place}"
        else:
            phrase.where = f"{_at(words, place)} {phrase.place}"
    if frame == "part_for" and item.move.focus in ("", "equipment", "passage"):
        phrase.tail = f"for {_sign(words, place)}"


def _move_phrase(words: Words, item: Situation, phrase: Phrase, frame: str) -> None:
    zone, place = item.environment.zone, item.environment
    phrase.place = _place(words, place)
    phrase.where = f"{place.through} {phrase.place}"
    if frame == "goal":
        phrase.target = _goal(words, zone)
        return
    cargo = words.pick(pools.HEAVY if frame.startswith("heavy") else pools.LIGHT)
    phrase.target = with_article(cargo, "") if cargo.startswith("~") else cargo
    if frame.endswith("_to"):
        phrase.tail = f"to {_goal(words, zone)}"
        if words.chance(0.15):
            phrase.tail = f"from {_goal(words, zone)} {phrase.tail}"
    if frame == "airlift":
        phrase.tail, phrase.where = f"to {_goal(words, zone)}", f"{place.at} {phrase.place}"


def _up_phrase(words: Words, item: Situation, phrase: Phrase, frame: str) -> None:
    place = item.environment
    phrase.place = phrase.target = _place(words, place)
    if frame == "up_goal":
        phrase.tail = f"to {'reach ' if words.chance(0.5) else 'get to '}{_goal(words, place.zone)}"
    elif frame == "up_check":
        look = words.pick(ACTIONS["inspect"].verbs).lstrip("*")
        phrase.tail = f"to {look} the {words.pick(place.parts[''])}"


def _at_place(words: Words, item: Situation, phrase: Phrase, target: str, omit: float = 0.0) -> None:
    phrase.target = target
    if not words.chance(omit):
        phrase.place = _place(words, item.environment)
        phrase.where = f"{_at(words, item.environment)} {phrase.place}"


def _fill_frame(words: Words, item: Situation, phrase: Phrase, frame: str) -> None:
    place = item.environment
    if frame in ("part", "part_for"):
        _part_phrase(words, item, phrase, frame)
    elif frame.startswith("place"):
        phrase.target = phrase.place = _place(words, place)
        if frame == "place_study" and place.zone in ("rough", "sand"):
            phrase.tail = words.pick(pools.STUDIES)
        if frame == "place_for":
            phrase.tail = f"for {_sign(words, place)}"
    elif frame == "cross_to":
        phrase.verb, phrase.passive, phrase.noun = words.pick(ACTIONS["traverse"].verbs).lstrip("*"), False, ""
        phrase.target = phrase.place = _place(words, place)
        phrase.tail = (
            f"{words.generator.choice(('to reach', 'to get to', 'toward', 'to arrive at'))} {_goal(words, place.zone)}"
        )
    elif frame in ("cargo", "cargo_to", "heavy", "heavy_to", "goal", "airlift"):
        _move_phrase(words, item, phrase, frame)
    elif frame.startswith("up"):
        _up_phrase(words, item, phrase, frame)
    elif frame == "sign":
        pool = place.parts["living"] if item.move.focus == "living" else place.signs
        _at_place(words, item, phrase, words.pick(pool))
    elif frame == "device":
        _at_place(words, item, phrase, with_article(words.pick(pools.DEVICES), ""))
    elif frame == "specimen":
        _at_place(words, item, phrase, words.pick(pools.SPECIMENS[place.zone]))
    elif frame == "soil":
        _at_place(words, item, phrase, words.pick(place.parts["soil"]), omit=0.3)
    else:
        phrase.verb = words.pick(place.jobs.get(item.action.key) or JOBS[item.action.key])
        _at_place(words, item, phrase, "", omit=0.3)


def _frames(item: Situation) -> tuple[str, ...]:
    """The frames an action can use here: a focus needs its thing named, a place without parts cannot name any."""
    frames = item.action.frames
    if item.move.focus:
        return tuple(frame for frame in frames if frame.startswith(("part", "sign", "soil")))
    if "" not in item.environment.parts:
        frames = tuple(frame for frame in frames if not frame.startswith("part") and frame != "up_check")
    return frames or ("place",)


def choose_phrase(words: Words, item: Situation) -> Phrase:
    """Choose verb, object, place and tail that state a situation."""
    verbs = item.action.verbs
    verb = words.pick(verbs) if verbs else ""
    phrase = Phrase(verb.lstrip("*"), passive=bool(verb) and not verb.startswith("*"), noun=item.action.noun)
    if item.action.activity in ("hands", "fieldwork", "climb", "reach"):
        phrase.noun = ""
    frame = words.generator.choice(_frames(item))
    _fill_frame(words, item, phrase, frame)
    if item.action.key not in ("fly_over", "airlift"):
        view = {"above": pools.ABOVE, "below": pools.BELOW}.get(item.move.vantage)
        if view:
            phrase.tail = f"{phrase.tail} {words.pick(view)}"
    return phrase
