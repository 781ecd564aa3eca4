"""Generated drone scenes: pictures show what facts, boxes and captions say; drawn once; options mean what they say."""

import dataclasses
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from hfvla.data.boxes import relation_words
from hfvla.data.samples.retrieval import image_text_features, platform_of
from hfvla.data.samples.video import parse_details
from hfvla.errors import DataError
from hfvla.worlds.drone import (
    BUILDING,
    DroneOptions,
    build_drone,
    count_drone,
    draw_buildings,
    draw_picture,
    draw_view,
    scene_boxes,
)
from hfvla.worlds.drone.builder import draw_images
from hfvla.worlds.drone.holdout import GROUNDS, KINDS, MARKS, ROADS, ROOFS, SHAPES, is_held_out
from hfvla.worlds.drone.wording import THINGS

VIEWS = 4
NOUNS = {"pool": "pool", "pond": "pond", "trees": "trees", "car park": "car park|parking lot", "field": "sports field",
         "court": "tennis court", "garden": "flower garden", "tanks": "tanks"}  # fmt: skip
PLACE = re.compile(r"\b(upper|middle|lower) (left|middle|right)\b")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("drone"))


@pytest.fixture(scope="module")
def built(folder):
    return build_drone(DroneOptions(buildings=30, folder=folder), seed=0)


def test_rows_have_the_shared_features_and_say_whose_they_are(built):
    assert built.dataset.features == image_text_features()
    assert len(built.dataset) == 30 * 4 * 3 == count_drone(DroneOptions(buildings=30))
    assert len(set(built.dataset["id"])) == 360 and len(set(built.dataset["image"])) == 120
    assert set(Counter(built.dataset["group"]).values()) == {12}
    assert built.census["platforms"] == {"drone": 180, "satellite": 90, "ground": 90}
    for row in built.dataset.to_list():
        assert row["image"].endswith(row["image_id"]) and row["image_id"].startswith(row["group"] + "/")
        assert platform_of(row["image_id"]) == row["platform"] and len(row["sentences"]) == len(row["boxes"]) <= 3
        assert row["source"] == "drone" and set(parse_details(row["details"])) >= {"roof", "shape", "objects"}
        for x, y, width, height in row["boxes"]:
            assert min(x - width / 2, y - height / 2, 1 - x - width / 2, 1 - y - height / 2) > -2e-6


def test_files_are_the_pictures_that_are_drawn(built):
    (building, *_) = draw_buildings(1, "train", 0)
    row = built.dataset[0]
    shown = np.asarray(Image.open(row["image"])).astype(int)
    drawn = draw_picture(building, draw_view(building, 0, VIEWS), 64).astype(int)
    assert shown.shape == (64, 64, 3) and np.abs(shown - drawn).mean() < 6


def test_pictures_are_drawn_once_and_a_larger_set_begins_with_a_smaller(built, folder):
    again = build_drone(DroneOptions(buildings=31, folder=folder), seed=0)
    assert (built.census["drawn"], again.census["drawn"]) == (120, 4)
    assert again.dataset.to_list()[:360] == built.dataset.to_list()
    other = build_drone(DroneOptions(buildings=1, folder=folder, image_size=32), seed=0)
    assert other.census["drawn"] == 4 and Image.open(other.dataset[0]["image"]).size == (32, 32)


def test_another_seed_and_the_options_own_seed(folder, built):
    other = build_drone(DroneOptions(buildings=2, folder=folder), seed=1)
    assert other.dataset["caption"][:] != built.dataset["caption"][:24]
    own = build_drone(DroneOptions(buildings=2, folder=folder, seed=1), seed=0)
    assert own.dataset.to_list() == other.dataset.to_list()
    assert set(other.dataset["group"]).isdisjoint(built.dataset["group"])


def test_the_number_of_captions_changes_no_picture_and_no_earlier_caption():
    few, many = (draw_images(DroneOptions(buildings=3, captions=count), 0) for count in (1, 5))
    for one, other in zip(few, many, strict=True):
        assert (one.view, one.building, one.wordings) == (other.view, other.building, other.wordings[:1])
        assert len({wording.caption for wording in other.wordings}) > 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_scenes_keep_their_rules(split):
    buildings = draw_buildings(800, split, 0)
    assert len({building.identity for building in buildings}) == len({building.name for building in buildings}) == 800
    for building in buildings:
        assert is_held_out(building.roof, building.shape, building.mark, building.ground) == (split == "test")
        kinds, slots = zip(*((one.kind, one.slot) for one in building.surroundings), strict=True)
        assert len(set(kinds)) == len(set(slots)) == 3
        road = building.road
        assert not any(slot.split()[0 if road in ("upper", "lower") else 1] == road for slot in slots)
    for name, values in (("roof", ROOFS), ("shape", SHAPES), ("mark", MARKS), ("ground", GROUNDS), ("road", ROADS)):
        counts = Counter(getattr(building, name) for building in buildings)
        assert set(counts) == set(values) and max(counts.values()) < 1.5 * min(counts.values()), (name, counts)
    assert set(Counter(one.kind for building in buildings for one in building.surroundings)) == set(KINDS)


def test_a_split_never_shows_a_combination_of_the_other():
    seen = [
        {(one.roof, one.shape, one.mark, one.ground) for one in draw_buildings(2000, split, seed)}
        for split, seed in (("train", 0), ("test", 1))
    ]
    assert seen[0].isdisjoint(seen[1]) and len(seen[1]) == 192  # a quarter of 8 x 6 x 4 x 4


def changed_box(one, other):
    """Box around the pixels in which two pictures differ."""
    rows, columns = np.nonzero(np.abs(one.astype(int) - other.astype(int)).max(axis=2) > 8)
    side = len(one)
    (top, bottom), (left, right) = ((part.min() / side, (part.max() + 1) / side) for part in (rows, columns))
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def test_boxes_are_where_the_picture_shows_the_object():
    checked = Counter()
    for building in draw_buildings(40, "test", 5):
        for index in range(VIEWS):
            view = draw_view(building, index, VIEWS)
            picture, boxes = draw_picture(building, view, 128), scene_boxes(building, view)
            assert boxes.pop("road") is None and set(boxes) == {BUILDING, *(one.kind for one in building.surroundings)}
            roof = "blue" if building.roof != "blue" else "red"
            without = {BUILDING: dataclasses.replace(building, roof=roof)}
            for one in building.surroundings:
                rest = tuple(other for other in building.surroundings if other is not one)
                without[one.kind] = dataclasses.replace(building, surroundings=rest)
            for name, box in boxes.items():
                if box is not None and view.platform != "ground":  # there one may hide another
                    shown = changed_box(picture, draw_picture(without[name], view, 128))
                    assert np.abs(np.subtract(box, shown)).max() < 0.03, (building, view, name)
                    checked[name] += 1
    assert set(checked) == {BUILDING, *KINDS}


def test_walls_of_a_ground_view_belong_to_the_building():
    for building in draw_buildings(10, "train", 1):
        alone, view = dataclasses.replace(building, surroundings=()), draw_view(building, 3, VIEWS)
        other = dataclasses.replace(alone, roof="blue" if building.roof != "blue" else "red")
        assert view.platform == "ground"
        shown = changed_box(draw_picture(alone, view, 128), draw_picture(other, view, 128))
        assert np.abs(np.subtract(scene_boxes(alone, view)[BUILDING], shown)).max() < 0.03


def test_captions_and_sentences_say_what_is_there():
    told = Counter()
    for image in draw_images(DroneOptions(buildings=60), 2):
        building, boxes = image.building, scene_boxes(image.building, image.view)
        for wording in image.wordings:
            text = " ".join([wording.caption, *(sentence for sentence, _ in wording.slots if sentence)])
            assert set(re.findall(rf"\b({'|'.join(SHAPES)})\b", text.replace("round helipad", ""))) == {building.shape}
            caption = (
                wording.caption.replace("grey stripe", "").replace("pink flower", "").replace("orange tennis", "")
            )
            caption = re.sub("white tanks|blue swimming|yellow sand", "", caption)
            assert set(re.findall(rf"\b({'|'.join(ROOFS)})\b", caption)) == {building.roof}
            for sentence in re.findall(r"[^.]+\.", text):
                for kind, noun in NOUNS.items():
                    if re.search(noun, sentence):
                        assert boxes.get(kind, "absent") != "absent", (kind, sentence)
                        told[kind] += 1
                        if place := PLACE.search(sentence):
                            across, down = relation_words(boxes[BUILDING], boxes[kind])
                            assert (down, across.replace("centre", "middle")) == place.groups()
                            told["place"] += 1
                if "road" in sentence:
                    assert f"{building.road} side" in sentence
    assert set(told) == {*KINDS, "place"} and set(THINGS) == set(KINDS)


def test_sentences_are_about_their_own_box_each_object_once_and_some_have_none():
    slots = nulls = roads = placed = 0
    for image in draw_images(DroneOptions(buildings=100), 0):
        boxes = scene_boxes(image.building, image.view)
        for wording in image.wordings:
            assert len(wording.slots) == 3
            names = []
            for sentence, box in wording.slots:
                slots, nulls = slots + 1, nulls + (sentence is None)
                if sentence is None:
                    assert box is None
                    continue
                name = next((kind for kind, noun in NOUNS.items() if re.search(noun, sentence)), BUILDING)
                name = "road" if " road " in sentence else name
                assert box == boxes[name], (sentence, box)
                names.append(name)
                roads, placed = roads + (name == "road"), placed + bool(PLACE.search(sentence))
            assert len(set(names)) == len(names)
    assert 0.02 < nulls / slots < 0.1 and 0.01 < roads / slots < 0.1 and 0.2 < placed / slots < 0.5


@pytest.mark.parametrize(("views", "platforms"), [(1, ["drone"]), (2, ["drone", "satellite"]), (3, None), (6, None)])
def test_platforms_of_the_views(views, platforms):
    found = [image.view.platform for image in draw_images(DroneOptions(buildings=1, views=views), 0)]
    assert found == (platforms or ["drone"] * (views - 2) + ["satellite", "ground"])
    assert len({image.image_id for image in draw_images(DroneOptions(buildings=1, views=views), 0)}) == views


def test_options_out_of_range_and_a_folder_that_cannot_be_written(tmp_path):
    for changes in ({"buildings": 0}, {"buildings": 5000}, {"split": "val"}, {"image_size": 8}, {"size": 3}):
        with pytest.raises(ValidationError, match=next(iter(changes))):
            DroneOptions(**changes)
    with pytest.raises(DataError, match=r"too many generated buildings; got 5000; expected at most 4999"):
        draw_buildings(5000, "train", 0)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"generated pictures cannot be written.*Name another folder"):
        build_drone(DroneOptions(buildings=1, folder=str(tmp_path / "file")))
