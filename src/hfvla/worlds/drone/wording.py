"""Captions and sentences of a view, in English with a small vocabulary; places follow from the view's own boxes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from hfvla.data.boxes import Box, relation_words
from hfvla.data.samples.retrieval import MAX_SENTENCES
from hfvla.worlds.drone.conditions import road_side
from hfvla.worlds.drone.picture import BUILDING
from hfvla.worlds.drone.scene import Building, View

__all__ = ["THINGS", "Wording", "describe", "place_words"]

THINGS: dict[str, tuple[str, ...]] = {
    "pool": ("a blue swimming pool", "a swimming pool"),
    "pond": ("a dark pond", "a pond"),
    "trees": ("a group of trees", "a grove of trees"),
    "car park": ("a car park", "a parking lot"),
    "field": ("a green sports field", "a sports field"),
    "court": ("an orange tennis court", "a tennis court"),
    "garden": ("a pink flower garden", "a flower garden"),
    "tanks": ("a pair of white tanks", "a pair of storage tanks"),
}
_GROUNDS: dict[str, tuple[str, ...]] = {
    "grass": ("green grass", "a green lawn"),
    "sand": ("yellow sand", "light sand"),
    "pavement": ("grey pavement", "grey concrete"),
    "soil": ("brown soil", "brown earth"),
}
_TIMELESS_GROUNDS: dict[str, tuple[str, ...]] = {
    "grass": ("grass", "a lawn"),
    "sand": ("sand", "bare sand"),
    "pavement": ("pavement", "concrete"),
    "soil": ("soil", "bare earth"),
}
"""Words that stay true when grass turns and the light changes; of `THINGS` and marks the last words do."""
_MARKS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "stripe": ("a grey stripe", "a stripe"),
    "helipad": ("a helipad", "a round helipad"),
    "courtyard": ("a courtyard", "an inner courtyard"),
}
_NAMES = ("{a_roof} {shape} building", "{a_shape} {roof} building", "{a_shape} building with {a_roof} roof")
_LEADS = ("in the center of the image is {what}.", "the image shows {what}.", "there is {what}.")
_GROUND_TEXTS = ("it stands on {what}.", "the ground is {what}.", "around it is {what}.")
_ROAD_TEXTS = ("a road runs along the {side} side.", "there is a road on the {side} side.")
_ASLANT = ("a road runs past it.", "there is a road beside it.")
_PLACED = ("on the {place} there is {what}.", "{what} lies on the {place}.", "there is {what} on the {place}.")
_UNPLACED = ("there is {what}.", "the image shows {what}.", "{what} can be seen.")
_MIDDLE = ("the object in the center of the image is {what}.", "in the center there is {what}.")
_NO_SENTENCE_SHARE = 0.05
_PLACED_SHARE = 0.45  # of sentences that tell where: the others ask for a look at the picture


@dataclass(frozen=True)
class Wording:
    """One caption of a view.

    Attributes:
        caption: describes the view.
        slots: `MAX_SENTENCES` pairs (sentence, box), each about another object, or about none: (None, None). The box
            is None where the object has none.
    """

    caption: str
    slots: tuple[tuple[str | None, Box | None], ...]


def place_words(anchor: Box, other: Box | None) -> str:
    """Return where a box lies as seen from another, e.g. "upper left"; "" when unknown or in the same place."""
    across, down = ("centre", "middle") if other is None else relation_words(anchor, other)
    if across == "centre":
        return "" if down == "middle" else f"{down} middle"
    return f"{down} {across}"


def _with_article(word: str) -> str:
    return f"{'an' if word[0] in 'aeio' else 'a'} {word}"  # "a U-shaped": the letter's name


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _name_building(building: Building, generator: random.Random, varied: bool) -> str:
    shape, roof = building.shape, building.roof
    a_shape = "an L-shaped" if shape == "L-shaped" else _with_article(shape)
    template = generator.choice(_NAMES)
    name = template.format(a_shape=a_shape, shape=shape, a_roof=_with_article(roof), roof=roof)
    if not _MARKS[building.mark]:
        return name
    mark = generator.choice(_MARKS[building.mark][-1 if varied else 0 :])
    return f"{name} {'and' if ' with ' in template else 'with'} {mark}"


def _name_road(side: str | None, generator: random.Random) -> str:
    return _sentence(generator.choice(_ASLANT if side is None else _ROAD_TEXTS).format(side=side))


def _name_object(kind: str, place: str, generator: random.Random, varied: bool) -> str:
    template = generator.choice(_PLACED if place else _UNPLACED)
    return _sentence(template.format(place=place, what=generator.choice(THINGS[kind][-1 if varied else 0 :])))


def _caption(
    building: Building, boxes: Mapping[str, Box | None], generator: random.Random, road: str | None, varied: bool
) -> str:
    anchor = boxes[BUILDING]
    texts = [generator.choice(_LEADS).format(what=_name_building(building, generator, varied))]
    if generator.random() < 0.8:
        words = (_TIMELESS_GROUNDS if varied else _GROUNDS)[building.ground]
        texts.append(generator.choice(_GROUND_TEXTS).format(what=generator.choice(words)))
    kinds = _told(building, boxes, varied)
    generator.shuffle(kinds)
    for kind in kinds[: len(kinds) if generator.random() < 0.75 else -1]:
        place = place_words(anchor, boxes[kind]) if anchor and generator.random() < 0.8 else ""
        texts.append(_name_object(kind, place, generator, varied))
    if generator.random() < 0.7:
        texts.append(_name_road(road, generator))
    return " ".join(map(_sentence, texts))


def _told(building: Building, boxes: Mapping[str, Box | None], varied: bool) -> list[str]:
    """Return the kinds of objects that may be told of: where things may be hidden, those that are seen."""
    return [one.kind for one in building.surroundings if not varied or boxes[one.kind] is not None]


def _slot(
    building: Building,
    name: str,
    boxes: Mapping[str, Box | None],
    generator: random.Random,
    road: str | None,
    varied: bool,
) -> tuple[str, Box | None]:
    placed = generator.random() < _PLACED_SHARE
    if name == BUILDING:
        template = generator.choice(_MIDDLE if placed else _UNPLACED)
        return _sentence(template.format(what=_name_building(building, generator, varied))), boxes[name]
    if name == "road":
        return _name_road(road, generator), boxes[name]
    anchor = boxes[BUILDING]
    place = place_words(anchor, boxes[name]) if anchor and placed else ""
    return _name_object(name, place, generator, varied), boxes[name]


def describe(building: Building, boxes: Mapping[str, Box | None], name: str, view: View | None = None) -> Wording:
    """Word one caption of a view.

    Args:
        building: what is seen.
        boxes: of the view, see `hfvla.worlds.drone.picture.scene_boxes`.
        name: of the caption, unique; the wording is a function of it and the other arguments.
        view: whose boxes they are; one with weather is told of in words that are true in any season, from its heading.
    """
    varied = view is not None and view.weather is not None
    road = road_side(building.road, view.angle) if varied and view is not None else building.road
    generator = random.Random(f"drone/words/{name}")
    caption = _caption(building, boxes, generator, road, varied)
    objects = _told(building, boxes, varied)
    generator.shuffle(objects)
    named = ([BUILDING] if generator.random() < 0.75 else []) + objects
    if generator.random() < 0.1:
        named.insert(1, "road")
    slots: list[tuple[str | None, Box | None]] = []
    for one in named[:MAX_SENTENCES]:
        missing = generator.random() < _NO_SENTENCE_SHARE
        slots.append((None, None) if missing else _slot(building, one, boxes, generator, road, varied))
    slots += [(None, None)] * (MAX_SENTENCES - len(slots))  # where things are hidden, fewer are told of
    return Wording(caption, tuple(slots))
