"""Varied conditions: what a caption says is true and can be seen, whatever heading, light, season and clouds."""

import dataclasses
import math
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from pydantic import ValidationError

from hfvla.data.boxes import relation_words
from hfvla.worlds.drone import (
    BUILDING,
    DroneOptions,
    build_drone,
    draw_buildings,
    draw_picture,
    draw_view,
    scene_boxes,
)
from hfvla.worlds.drone.builder import draw_images
from hfvla.worlds.drone.conditions import ALIKE, Weather, hidden, road_side
from hfvla.worlds.drone.holdout import KINDS, ROOFS, is_held_out
from hfvla.worlds.drone.outlines import object_parts

from .test_scenes import NOUNS, PLACE, VIEWS, changed_box

FIRM = {"blue", "dark", "green", "orange", "pink", "white", "yellow", "grey", "brown", "light"}


@pytest.fixture(scope="module")
def images():
    return draw_images(DroneOptions(buildings=60, conditions="varied"), 2)


@pytest.mark.parametrize("split", ["train", "test"])
def test_buildings_in_a_row_are_alike_and_can_be_told_apart(split):
    buildings = draw_buildings(400, split, 0, "varied")
    rows = [buildings[start : start + ALIKE] for start in range(0, len(buildings), ALIKE)]
    for row in rows:
        assert len({(one.roof, one.ground, *sorted(each.kind for each in one.surroundings)) for one in row}) == 1
        assert len({(one.shape, one.mark) for one in row}) == ALIKE
    assert all(is_held_out(one.roof, one.shape, one.mark, one.ground) == (split == "test") for one in buildings)
    without_road = {(*one.identity[:4], *one.identity[5:]) for one in buildings}
    assert len(without_road) == len(buildings)  # a side of the scene tells nothing where the heading is any
    assert len({row[0].roof for row in rows}) == len(ROOFS)


def test_captions_name_no_colour_that_changes_and_only_what_is_seen(images):
    told = Counter()
    for image in images:
        boxes = scene_boxes(image.building, image.view)
        side = road_side(image.building.road, image.view.angle)
        for wording in image.wordings:
            assert len(wording.slots) == 3
            for sentence in re.findall(
                r"[^.]+\.", " ".join([wording.caption, *(one for one, _ in wording.slots if one)])
            ):
                if " building " in sentence or sentence.endswith(" building."):
                    continue
                assert not FIRM & {*re.findall(r"\w+", sentence.lower())}, sentence
                if "road" in sentence:
                    assert (f"{side} side" in sentence) == (side is not None)
                    told["road" if side else "aslant"] += 1
                for kind, noun in NOUNS.items():
                    if re.search(noun, sentence):
                        assert boxes[kind] is not None
                        told[kind] += 1
                        if place := PLACE.search(sentence):
                            across, down = relation_words(boxes[BUILDING], boxes[kind])
                            assert (down, across.replace("centre", "middle")) == place.groups()
    assert set(told) == {*KINDS, "road", "aslant"}


def test_boxes_are_where_turned_and_painted_things_are_shown(images):
    checked = Counter()
    for image in images[::3]:
        clear = dataclasses.replace(image.view, weather=dataclasses.replace(image.view.weather, clouds=()))
        if clear.platform == "ground":  # there one may hide another
            continue
        picture, boxes = draw_picture(image.building, clear, 128), scene_boxes(image.building, clear)
        for one in image.building.surroundings:
            rest = tuple(other for other in image.building.surroundings if other is not one)
            without = draw_picture(dataclasses.replace(image.building, surroundings=rest), clear, 128)
            if boxes[one.kind] is not None:
                assert np.abs(np.subtract(boxes[one.kind], changed_box(picture, without))).max() < 0.05, one
                checked[one.kind] += 1
    assert set(checked) == set(KINDS)


def test_headings_lights_and_paint_vary_and_the_plain_ones_do_not(images):
    angles = [image.view.angle for image in images]
    assert min(angles) < -2.5 and max(angles) > 2.5 and max(b - a for a, b in pairwise(sorted(angles))) < 0.3
    lights = [np.mean(image.view.brightness) for image in images]
    assert min(lights) < 0.62 and max(lights) > 1.02
    for kind in KINDS:
        plain = {colour for _, colour in object_parts(kind)}
        painted = {tuple(image.view.weather.colour(kind, one) for one in sorted(plain)) for image in images}
        assert len(painted) == 4, kind
    (building,) = draw_buildings(1, "train", 0)
    assert draw_view(building, 0, VIEWS).weather is None
    assert draw_view(building, 0, VIEWS, "varied") == draw_view(building, 0, VIEWS, "varied")


def test_clouds_hide_what_they_cover_and_never_the_building(images):
    box = (0.8, 0.5, 0.2, 0.2)
    assert hidden(box, Weather((0, 0, 0), {}, ((0.8, 0.5, 0.15),)))
    assert not hidden(box, Weather((0, 0, 0), {}, ((0.5, 0.5, 0.15),))) and not hidden(box, None)
    assert all(scene_boxes(image.building, image.view)[BUILDING] is not None for image in images)
    without = [scene_boxes(i.building, dataclasses.replace(i.view, weather=None)) for i in images]
    lost = sum(
        clear[kind] is not None and scene_boxes(image.building, image.view)[kind] is None
        for image, clear in zip(images, without, strict=True)
        for kind in clear
    )
    assert 10 < lost < 0.4 * len(images) * 3
    cloudy = next(image for image in images if len(image.view.weather.clouds) == 2)
    x, y, _ = cloudy.view.weather.clouds[1]
    drawn = draw_picture(cloudy.building, cloudy.view, 64).astype(int)
    if 0.05 < x < 0.95 and 0.15 < y < 0.95:
        assert np.abs(drawn[int(y * 64), int(x * 64)] - 240 * np.array(cloudy.view.brightness)).max() < 25


@pytest.mark.parametrize(
    ("angle", "side"), [(0, "upper"), (math.pi / 2, "right"), (math.pi, "lower"), (math.pi / 4, None), (0.4, "upper")]
)
def test_the_side_of_a_road_follows_the_heading(angle, side):
    assert road_side("upper", angle) == side


def test_both_conditions_are_kept_apart_on_disk(tmp_path):
    folders = {
        build_drone(
            DroneOptions(buildings=1, views=1, image_size=32, folder=str(tmp_path), conditions=conditions)
        ).census["folder"]
        for conditions in ("plain", "varied")
    }
    assert len(folders) == 2
    with pytest.raises(ValidationError, match="conditions"):
        DroneOptions(conditions="stormy")
