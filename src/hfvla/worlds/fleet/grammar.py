"""Puts the words of a situation into a sentence template: the text of a task."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hfvla.worlds.fleet import pools
from hfvla.worlds.fleet.inflect import is_plural
from hfvla.worlds.fleet.situations import Situation
from hfvla.worlds.fleet.templates import SCENE_TEMPLATES, TEMPLATES
from hfvla.worlds.fleet.wording import Phrase, Words, choose_phrase

__all__ = ["Sentence", "write_scene_task", "write_task"]

_PURPOSE_POOL = {"carry": "move", "reach": "move", "climb": "move", "place": "look", "take": "look", "hands": "hands"}


@dataclass
class Sentence:
    """A written task.

    Attributes:
        text: the task.
        template: template it was written with.
        target: what is acted on, e.g. "the gutters".
        place: noun phrase of the place, "" when the text does not say it.
        verb: verb phrase in base form.
        unseen: held-out phrases it uses (test split only).
    """

    text: str
    template: str
    target: str
    place: str
    verb: str
    unseen: tuple[str, ...] = ()


def _compose(words: Words, phrase: Phrase, pool: Sequence[str], purposes: Sequence[str]) -> tuple[str, str]:
    slots = phrase.fill(tail_first=words.chance(0.5))
    slots["why"] = ""
    while True:
        template = words.template(pool)
        needed = set(re.findall(r"{(\w+)}", template))
        if needed <= set(slots):
            break
    if "why" in needed:
        slots["why"] = words.pick(purposes)
    text = template.format(**slots).replace("{must}", words.generator.choice(("must", "should", "has to", "needs to")))
    return _tidy(_agree(text, phrase.target)), template


def _agree(text: str, target: str) -> str:
    """Plural subjects take "have to" and "need to"."""
    if is_plural(target):
        return text.replace(" has to be ", " have to be ").replace(" needs to be ", " need to be ")
    return text


def _tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\s+([,.:!?])", r"\1", text)
    return text[:1].upper() + text[1:]


def write_task(item: Situation, generator: random.Random, test: bool) -> Sentence:
    """Write a task text for a situation.

    Args:
        item: what is asked where.
        generator: source of all choices.
        test: use held-out templates and words.
    """
    while True:
        words = Words(generator, test)
        sentence = _write_task(item, words)
        if words.unseen or not test:
            return sentence


def _write_task(item: Situation, words: Words) -> Sentence:
    phrase = choose_phrase(words, item)
    kind = "field" if item.action.activity == "fieldwork" else _PURPOSE_POOL.get(item.action.activity, "look")
    text, template = _compose(words, phrase, TEMPLATES, pools.PURPOSES[kind])
    extras = []
    if words.chance(0.12) and not item.move.vantage:
        extras.append(words.generator.choice(pools.FACT_SENTENCES[item.environment.zone].split(";")).strip())
    if words.chance(0.12):
        extras.append(words.pick(pools.DISTRACTORS))
    if extras and text[-1] not in ".?!":
        text += "."
    text = " ".join([text, *extras])
    return Sentence(text, template, phrase.target, phrase.place, phrase.verb, tuple(words.unseen))


def write_scene_task(item: Situation, generator: random.Random, test: bool) -> Sentence:
    """Write a task that says what to do but not where: the picture decides.

    Args:
        item: what is asked where; only its action shows in the text.
        generator: source of all choices.
        test: use held-out templates and words.
    """
    while True:
        words = Words(generator, test)
        sentence = _write_scene_task(item, words)
        if words.unseen or not test:
            return sentence


def _write_scene_task(item: Situation, words: Words) -> Sentence:
    verb = words.pick(item.action.verbs)
    phrase = Phrase(verb.lstrip("*"), place=words.pick(pools.SHOWN))
    if item.action.key in ("carry", "haul"):
        phrase.target = words.pick(pools.SHOWN_HEAVY if item.action.key == "haul" else pools.SHOWN_LIGHT)
        phrase.where = f"{words.generator.choice(('through', 'across'))} {phrase.place}"
    elif item.action.key == "reach":
        phrase.target = f"{words.generator.choice(('the far side', 'the other end', 'the far end'))} of {phrase.place}"
    else:
        phrase.target = phrase.place
        phrase.tail = f"for {words.pick(pools.SHOWN_SIGNS)}" if words.chance(0.5) else ""
    kind = "move" if item.action.key in ("carry", "haul", "reach") else "look"
    text, template = _compose(words, phrase, SCENE_TEMPLATES, pools.PURPOSES[kind])
    return Sentence(text, template, phrase.target, "", phrase.verb, tuple(words.unseen))
