"""Captions and boxes say what the picture shows."""

import re

import numpy as np
import pytest

from hfvla.data.samples.chat import ChatSample, check_chat
from hfvla.data.samples.chat_pictures import load_reference
from hfvla.metrics.chat.tasks import task_of
from hfvla.worlds.shapes import COLOURS, KINDS, ShapesOptions, build_shapes


def samples(**options):
    return [ChatSample.from_row(row) for row in build_shapes(ShapesOptions(**options), seed=1).dataset]


def test_boxes_lie_where_the_colour_is_painted():
    names, values = list(COLOURS), np.array(list(COLOURS.values()))
    for sample in samples(size=40, kinds=["box"], image_size=128):
        check_chat(sample)
        pixels = np.asarray(load_reference(sample.images[0])).astype(int)
        box = sample.boxes[0]
        distance = np.abs(pixels[..., None, :] - values).sum(-1)  # [H, W, colours]
        own = names.index(box.label.split()[0])
        rows, columns = np.nonzero((distance.argmin(-1) == own) & (distance.min(-1) < 40))
        painted = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        np.testing.assert_allclose(painted, box.xyxy, atol=2.5)
        said = [float(number) for number in re.findall(r"\d+\.\d+", sample.turns[-1].text)]
        np.testing.assert_allclose(said, box.normalised, atol=0.006)
        assert task_of(sample) == "box"


def test_captions_name_every_thing_and_its_place():
    for sample in samples(size=20, kinds=["caption"]):
        caption, colours = sample.turns[-1].text, [name for name in COLOURS if name in sample.turns[-1].text]
        assert caption.endswith(".") and caption[0].isupper() and task_of(sample) == "caption"
        assert 1 <= len(colours) == caption.count(" at the ")


@pytest.mark.parametrize("kind", ["caption", "box"])
def test_a_worse_answer_differs(kind):
    for sample in samples(size=10, kinds=[kind], preferences=True):
        assert sample.rejected[-1].text != sample.turns[-1].text


def test_what_is_asked_by_default_has_short_answers():
    assert not {"caption", "box"} & set(KINDS)


def test_most_things_bounds_a_picture():
    for most in (1, 2):
        told = [sample.turns[-1].text for sample in samples(size=30, kinds=["caption"], most_things=most)]
        assert max(caption.count(" at the ") for caption in told) == most
