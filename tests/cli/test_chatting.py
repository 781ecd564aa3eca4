"""A conversation in the terminal, with a model that says back what it was asked."""

import pytest
from PIL import Image
from typer.testing import CliRunner

from hfvla.cli.chatting import converse
from hfvla.cli.commands import app
from hfvla.errors import DataError
from hfvla.family import ChatSystem

from ..data.video_clips import write_clip


@pytest.fixture
def talk():
    """Return what is said to lines, and the samples that the model saw."""
    seen = []

    def write(samples, max_new_tokens, **drawn):
        seen.extend(samples)
        if "fail" in samples[0].turns[-1].text:
            raise DataError("a prompt leaves no room for an answer")
        told = f", {len(samples[0].videos)} videos" if samples[0].videos else ""
        more = "".join(f", {name} {value}" for name, value in drawn.items())
        return [f"{len(samples[0].images)} pictures{told}, {max_new_tokens} tokens{more}"]

    def run(*lines, **more):
        said = []
        converse(ChatSystem(write=write), lines, said.append, **more)
        return said, seen

    return run


def test_turns_and_pictures_add_up(talk, tmp_path):
    picture = tmp_path / "a b.png"
    Image.new("RGB", (4, 4)).save(picture)
    said, seen = talk("Hello\n", f"{picture}\n", "What is it?\n", "", "And now?\n", told="Be short.", max_new_tokens=7)
    assert said == ["0 pictures, 7 tokens", "1 pictures, 7 tokens", "1 pictures, 7 tokens"]
    roles = [turn.role for turn in seen[-1].turns]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [part.type for part in seen[-1].turns[3].content] == ["image", "text"]
    assert seen[-1].turns[2].text == "0 pictures, 7 tokens" and seen[-1].images[0].path == str(picture)


def test_a_new_conversation_and_the_end(talk, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    said, seen = talk(f"/image '{tmp_path / 'a.jpg'}'", "One?", "/new", "Two?", "/quit", "Three?")
    assert len(said) == 2 and len(seen[-1].turns) == 1 and seen[-1].images == ()


def test_what_cannot_be_answered_is_left_out(talk, tmp_path):
    (tmp_path / "torn.png").write_bytes(b"no picture")
    said, seen = talk("/image nowhere.png", str(tmp_path / "torn.png"), "fail", "Again?")
    assert len(said) == 4 and all(text.startswith("error: ") for text in said[:3])
    assert "nowhere.png" in said[0] and "torn.png" in said[1] and "no room" in said[2]
    assert [turn.text for turn in seen[-1].turns] == ["Again?"]


def test_videos_are_shown_by_their_path(talk, tmp_path):
    clip = write_clip(tmp_path / "drive.mp4", 4)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    said, seen = talk(
        f"/video {tmp_path / 'torn.mp4'}",
        str(clip),
        str(tmp_path / "a.png"),
        "What?",
        "fail",
        "And?",
        max_new_tokens=3,
    )
    assert said[0].startswith("error: ") and "torn.mp4" in said[0]
    assert said[1] == said[3] == "1 pictures, 1 videos, 3 tokens" and said[2].startswith("error: ")
    assert [part.type for part in seen[-1].turns[0].content] == ["image", "video", "text"]
    assert seen[-1].videos == (str(clip),) and seen[-1].turns[-1].text == "And?"


def test_what_the_model_does_not_take_is_not_shown_again(talk, tmp_path):
    clip = write_clip(tmp_path / "a.mp4", 4)
    said, seen = talk(str(clip), "fail", "Again?")
    assert said[0].startswith("error: ") and said[1].startswith("0 pictures, 256") and seen[-1].videos == ()


def test_words_are_drawn_where_a_temperature_is_given(talk):
    assert talk("Hello", temperature=0.7)[0] == ["0 pictures, 256 tokens, temperature 0.7"]
    assert talk("Hello", temperature=0.0)[0] == ["0 pictures, 256 tokens"]  # a writer of its own need not know it


def test_a_temperature_is_a_number():
    done = CliRunner().invoke(app, ["chat", "--checkpoint", "nowhere", "--temperature", "nan"])
    assert done.exit_code == 2 and "--temperature" in done.output
    done = CliRunner().invoke(app, ["chat", "--checkpoint", "nowhere", "--temperature", "-1"])
    assert done.exit_code == 2 and "temperature" in done.output
