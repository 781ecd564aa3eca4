from dataclasses import replace

import pytest
from datasets import Dataset
from PIL import Image

from hfvla.data.samples.chat import Box, ChatSample, ImageRef, Part, Turn, chat_features, check_chat, text_turn
from hfvla.data.samples.chat_pictures import blank_pictures, load_reference, reference_of
from hfvla.data.sources.census import UnusableError

from ..video_clips import HEIGHT, WIDTH, write_clip

ASK, ANSWER = text_turn("user", "What is this?", images=1), text_turn("assistant", "A cat.")
SAMPLE = ChatSample(
    id="7",
    turns=(Turn("system", (Part("text", "Be brief."),)), ASK, ANSWER),
    images=(ImageRef("shard.tar", offset=512, size=99),),
    boxes=(Box(0, "cat", (1.0, 2.0, 5.0, 10.0), (10, 20)),),
    references=("A cat.", "cat"),
    source="vqa_v2",
    group="7",
    details={"rationale": "It purrs."},
)


def test_a_sample_survives_arrow():
    rows = Dataset.from_list([SAMPLE.to_row(), replace(SAMPLE, images=(ImageRef(data=b"\x00png"),)).to_row()])
    rows = rows.cast(chat_features())
    assert ChatSample.from_row(rows[0]) == SAMPLE
    assert ChatSample.from_row(rows[1]).images == (ImageRef(data=b"\x00png"),)


def test_boxes_are_also_shares_of_the_picture():
    assert SAMPLE.boxes[0].normalised == (0.1, 0.1, 0.5, 0.5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"turns": ()}, "conversation without turns"),
        ({"turns": (ANSWER, ASK)}, "roles out of order"),
        ({"turns": (ASK,)}, "roles out of order"),
        ({"turns": (ASK, ASK, ANSWER)}, "roles out of order"),
        ({"turns": (ASK, text_turn("assistant", " "))}, "empty answer"),
        ({"turns": (text_turn("user", "What?"), ANSWER)}, "image placeholders and images differ"),
        ({"images": ()}, "image placeholders and images differ"),
        ({"videos": ("a.mp4",)}, "video placeholders and videos differ"),
        ({"rejected": (ANSWER,)}, "roles out of order"),
        ({"boxes": (Box(1, "cat", (0, 0, 1, 1), (10, 20)),)}, "box of a picture that is not there"),
        ({"boxes": (Box(0, "cat", (1, 1, 1, 9), (10, 20)),)}, "box without area"),
        ({"boxes": (Box(0, "cat", (1, 1, 11, 9), (10, 20)),)}, "box outside of its picture"),
    ],
)
def test_what_cannot_be_trained_on_is_named(change, reason):
    check_chat(SAMPLE)
    with pytest.raises(UnusableError, match=reason):
        check_chat(replace(SAMPLE, **change))


def test_a_video_is_blank_as_a_picture_of_its_size(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", 4)
    red = reference_of(Image.new("RGB", (5, 7), "red"))
    shown = (Part("video"), Part("text", "or"), Part("image"), Part("text", "?"))
    sample = ChatSample("a", (Turn("user", shown), text_turn("assistant", "x")), (red,), (str(clip),))
    blank = blank_pictures(sample)
    assert [part.type for part in blank.turns[0].content] == ["image", "text", "image", "text"] and not blank.videos
    pictures = [load_reference(one) for one in blank.images]
    assert [one.size for one in pictures] == [(WIDTH, HEIGHT), (5, 7)]
    assert all(one.getextrema() == ((127, 127),) * 3 for one in pictures)
