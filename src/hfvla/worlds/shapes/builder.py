"""Rows of conversations on drawn pictures of shapes."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hfvla.data.samples.chat import Box, ChatSample, ImageRef, Turn, chat_features, text_turn
from hfvla.family import SourceData
from hfvla.worlds.shapes.drawing import draw, png
from hfvla.worlds.shapes.questions import KINDS, Kind, ask
from hfvla.worlds.shapes.scene import PLACES, Split, Thing, make_scene

__all__ = ["ShapesOptions", "build_shapes", "count_shapes"]


class ShapesOptions(BaseModel):
    """What a recipe may say: `{source: shapes, size: 2000, split: test}`.

    Args:
        size: pictures, each with one conversation.
        split: test pictures hold a pair of colour and shape that no training picture has.
        seed: of the drawing; the run's own when not given.
        image_size: side in pixels.
        turns: questions on each picture, of different kinds where there are as many.
        kinds: what is asked.
        most_things: shapes in a picture, at most; with one, a colour is known without knowing the shape.
        preferences: each conversation also has a worse answer (for `dpo`); with one question.
    """

    model_config = ConfigDict(extra="forbid")
    size: int = Field(1000, ge=1)
    split: Split = "train"
    seed: int | None = Field(None, ge=0)
    image_size: int = Field(64, ge=16, le=1024)
    turns: int = Field(1, ge=1, le=16)
    kinds: list[Kind] = Field(default_factory=lambda: list(KINDS), min_length=1)
    most_things: int = Field(len(PLACES), ge=1, le=len(PLACES))
    preferences: bool = False


def count_shapes(options: ShapesOptions) -> int:
    """Return the rows without building them."""
    return options.size


def build_shapes(options: ShapesOptions, *, seed: int) -> SourceData:
    """Draw pictures and ask about them; the same options and seed give the same rows."""
    from datasets import Dataset

    seed = seed if options.seed is None else options.seed
    rows = [_sample(options, seed, number).to_row() for number in range(options.size)]
    dataset = Dataset.from_list(rows, features=chat_features())
    return SourceData(dataset, {"found": options.size, "usable": options.size, "rejected": {}})


def _sample(options: ShapesOptions, seed: int, number: int) -> ChatSample:
    rng = np.random.default_rng([seed, number, options.split == "test"])
    scene = make_scene(rng, options.split, options.most_things)
    picture = png(draw(scene, options.image_size, rng))
    kinds = [options.kinds[int(place)] for place in rng.permutation(len(options.kinds))]
    asked = [ask(scene, kinds[turn % len(kinds)], rng) for turn in range(options.turns)]
    turns: list[Turn] = []
    for place, question in enumerate(asked):
        turns += [text_turn("user", question.text, images=int(place == 0)), text_turn("assistant", question.answer)]
    name = f"shapes-{options.split}-{seed}-{number}"
    side = options.image_size
    found = [question.thing for question in asked if question.thing is not None]
    boxes = tuple(_box(thing, side) for thing in found)
    rejected = (*turns[:-1], text_turn("assistant", asked[-1].wrong)) if options.preferences else ()
    return ChatSample(
        id=name,
        turns=tuple(turns),
        images=(ImageRef(data=picture),),
        boxes=boxes,
        rejected=rejected,
        references=(asked[-1].answer,),
        kind=asked[-1].kind,
        source="shapes",
        split=options.split,
        group=name,
    )


def _box(thing: Thing, side: int) -> Box:
    left, top, right, bottom = (min(max(share * side, 0.0), float(side)) for share in thing.box)
    return Box(0, thing.name, (left, top, right, bottom), (side, side))
