"""Messages of evaluation packages as conversations."""

import pytest
from PIL import Image

from hfvla.data.samples.chat_pictures import load_reference
from hfvla.errors import CheckpointError, DataError
from hfvla.evaluation.adapters.messages import chat_sample
from hfvla.evaluation.chat_system import load_chat_system

from ...backbones.tiny_llava import save


def test_parts_of_every_form(tmp_path):
    red, blue, green = (Image.new("RGB", (4, 3), colour) for colour in ("red", "blue", "#00ff00"))
    blue.save(tmp_path / "blue.png")
    green.save(tmp_path / "green.png")
    sample = chat_sample("m", [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image", "url": red}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "value": "red"}]},
        {"role": "user", "content": [
            {"type": "image", "value": str(tmp_path / "blue.png")}, {"type": "text", "value": "And?"},
            {"type": "image", "image": (tmp_path / "green.png").read_bytes()},
        ]},
    ])  # fmt: skip
    assert [turn.role for turn in sample.turns] == ["system", "user", "assistant", "user"]
    assert [part.type for part in sample.turns[3].content] == ["image", "text", "image"]
    colours = [load_reference(image).getpixel((0, 0)) for image in sample.images]
    assert colours == [(255, 0, 0), (0, 0, 255), (0, 255, 0)]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([{"type": "video", "url": "a.mp4"}], "pictures and texts only.*video"),
        ([{"type": "image", "url": "https://example.org/a.png"}], "no picture.*example.org"),
        ([{"type": "image", "url": 7}], "no picture.*7"),
    ],
)
def test_what_cannot_be_shown(content, match):
    with pytest.raises(DataError, match=match):
        chat_sample("m", [{"role": "user", "content": content}])


def test_a_question_comes_last():
    with pytest.raises(DataError, match="does not end in a question"):
        chat_sample("m", [{"role": "assistant", "content": "Hello."}])


def test_checkpoints_that_answer_nothing_are_refused(tmp_path):
    model = save(tmp_path / "model")
    (tmp_path / "model/chat_template.jinja").unlink()
    question = chat_sample("m", [{"role": "user", "content": "What?"}])
    with pytest.raises((CheckpointError, DataError), match="no chat template"):
        load_chat_system(model, "cpu").write([question], 4)
    (tmp_path / "model/model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="incomplete or damaged"):
        load_chat_system(model, "cpu")
    with pytest.raises(CheckpointError):
        load_chat_system(tmp_path / "nowhere", "cpu")
