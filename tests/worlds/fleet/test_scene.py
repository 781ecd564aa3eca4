"""Pictures: a function of place, seed and size; nothing about the task, nothing written."""

import inspect
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from hfvla.worlds.fleet.builder import FleetOptions, generate_task
from hfvla.worlds.fleet.places import environments
from hfvla.worlds.fleet.scene import PAINTERS, encode_png, render_scene
from hfvla.worlds.fleet.situations import situations


def test_same_place_and_seed_give_the_same_bytes_whatever_the_label():
    by_place = {}
    for item in situations():
        by_place.setdefault(item.environment.key, {})[item.robots] = item
    place = max(by_place, key=lambda key: len(by_place[key]))
    assert len(by_place[place]) >= 4
    pictures = {encode_png(render_scene(item.environment.key, 7, 48)) for item in by_place[place].values()}
    assert len(pictures) == 1


def test_two_generated_tasks_with_other_labels_at_one_place_share_the_picture(monkeypatch):
    from hfvla.worlds.fleet import builder

    wanted = [item for item in situations() if item.environment.key == "harbour"]
    options, images = FleetOptions(image_size=32, scene_only_fraction=0.0), {}
    for item in wanted:
        monkeypatch.setattr(builder, "draw_situation", lambda generator, kinds, item=item: item)
        task = generate_task(5, options, seed=3)
        images[task.robots] = task.image
    assert len(images) >= 3 and len(set(images.values())) == 1


def test_the_renderer_cannot_see_the_task():
    assert list(inspect.signature(render_scene).parameters) == ["environment_key", "seed", "size"]


def test_no_text_is_drawn(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("text was drawn")

    for owner, name in (
        (ImageDraw.ImageDraw, "text"),
        (ImageDraw.ImageDraw, "multiline_text"),
        (ImageFont, "truetype"),
    ):
        monkeypatch.setattr(owner, name, refuse)
    assert all(render_scene(place, 0, 32).size == (32, 32) for place in environments())


def test_seeds_vary_the_picture_and_the_size_is_kept():
    for family in PAINTERS:
        place = next(key for key, value in environments().items() if value.scene == family)
        first, second = (render_scene(place, seed, 40) for seed in (0, 1))
        assert first.size == (40, 40) and first.mode == "RGB"
        assert np.abs(np.asarray(first, float) - np.asarray(second, float)).mean() > 3, family


def test_families_can_be_told_apart():
    from sklearn.linear_model import LogisticRegression

    generator, rows, names = random.Random(0), [], []
    places = {}
    for key, place in environments().items():
        places.setdefault(place.scene, []).append(key)
    for family, keys in places.items():
        for seed in range(24):
            picture = render_scene(generator.choice(keys), seed, 32).resize((12, 12), Image.Resampling.BILINEAR)
            rows.append(np.asarray(picture).ravel() / 255)
            names.append(family)
    rows, names = np.array(rows), np.array(names)
    test = np.arange(len(rows)) % 4 == 0
    score = LogisticRegression(max_iter=200).fit(rows[~test], names[~test]).score(rows[test], names[test])
    assert score > 0.8


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="8 px"):
        render_scene("beach", 0, 8)
    with pytest.raises(KeyError, match="atlantis"):
        render_scene("atlantis", 0, 32)
