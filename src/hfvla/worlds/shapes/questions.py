"""Questions on a scene, each with its answer and a wrong one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hfvla.worlds.shapes.scene import COLOURS, PLACES, SHAPES, Scene, Thing

__all__ = ["KINDS", "Kind", "Question", "ask"]

Kind = Literal["colour", "shape", "place", "count", "exists", "caption", "box"]
KINDS: tuple[Kind, ...] = ("colour", "shape", "place", "count", "exists")
"""Those with an answer of a word or two, which are asked by default."""
NUMBERS = ("one", "two", "three", "four")


@dataclass(frozen=True)
class Question:
    """A question.

    Attributes:
        kind: one of `KINDS`.
        text: what is asked.
        answer: the right answer, a word or two.
        wrong: one that sounds as good and is wrong.
        thing: what a "box" is asked for.
    """

    kind: str
    text: str
    answer: str
    wrong: str
    thing: Thing | None = None


def ask(scene: Scene, kind: str, rng: np.random.Generator) -> Question:
    """Return a question of a kind on a scene."""
    thing = scene.things[int(rng.integers(len(scene.things)))]
    if kind == "colour":
        return Question(kind, f"What colour is the {thing.shape}?", thing.colour, _other(rng, COLOURS, thing.colour))
    if kind == "shape":
        return Question(kind, f"Which shape is {thing.colour}?", thing.shape, _other(rng, SHAPES, thing.shape))
    if kind == "place":
        place = PLACES[thing.place]
        return Question(kind, f"Where is the {thing.shape}?", place, _other(rng, PLACES, place))
    if kind == "count":
        number = NUMBERS[len(scene.things) - 1]
        return Question(kind, "How many shapes are there?", number, _other(rng, NUMBERS, number))
    if kind == "caption":
        other = replace(thing, colour=_other(rng, COLOURS, thing.colour))
        changed = tuple(other if one is thing else one for one in scene.things)
        return Question(kind, "Describe the picture.", _caption(scene.things), _caption(changed))
    if kind == "box":
        wrong_box = tuple(1 - share for share in thing.box)
        edges = "[{:.2f}, {:.2f}, {:.2f}, {:.2f}]"
        text = f"Where is the {thing.name}? Answer with left, top, right, bottom."
        flipped = (wrong_box[2], wrong_box[3], wrong_box[0], wrong_box[1])
        return Question(kind, text, edges.format(*thing.box), edges.format(*flipped), thing)
    there = bool(rng.integers(2))
    colour = thing.colour
    if not there:  # a colour of the picture with another shape, so that neither word alone tells
        pairs = {(one.colour, one.shape) for one in scene.things}
        absent = [(c.colour, s) for c in scene.things for s in SHAPES if (c.colour, s) not in pairs]
        colour, shape = absent[int(rng.integers(len(absent)))]
    else:
        shape = thing.shape
    answer, wrong = ("yes", "no") if there else ("no", "yes")
    return Question(kind, f"Is there a {colour} {shape}?", answer, wrong)


def _caption(things: Sequence[Thing]) -> str:
    """Return "A red circle at the top left and a blue star at the bottom right."."""
    parts = [f"a{'n' if one.colour[0] == 'o' else ''} {one.name} at the {PLACES[one.place]}" for one in things]
    text = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{text[0].upper()}{text[1:]}."


def _other(rng: np.random.Generator, known: object, right: str) -> str:
    others = [name for name in known if name != right]  # type: ignore[attr-defined]
    return str(others[int(rng.integers(len(others)))])
