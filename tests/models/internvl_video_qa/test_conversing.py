"""The model as something that answers conversations: pictures, clips, batches, and refusals."""

import pytest
import torch
from PIL import Image

from hfvla.data.samples.chat import ChatSample, Part, Turn, text_turn
from hfvla.data.samples.chat_pictures import reference_of
from hfvla.errors import DataError
from hfvla.evaluation.chat_system import load_chat_system
from hfvla.models.internvl_video_qa import FAMILY
from hfvla.models.internvl_video_qa.conversing import chat_system


def asked(name, text, *colours, size=(40, 24)):
    images = tuple(reference_of(Image.new("RGB", size, colour)) for colour in colours)
    return ChatSample(id=name, turns=(text_turn("user", text, images=len(images)),), images=images)


def test_batches_pictures_and_clips(model, processor, rows, tmp_path):
    samples = [
        asked("a", "What colour is it?", "red"),
        asked("b", "Do they differ?", "blue", "green", size=(64, 32)),
        ChatSample(id="c", turns=(Turn("user", (Part("video"), Part("text", "What happens?"))),),
                   videos=(rows[0]["video"],)),
        asked("d", "Hello."),
    ]  # fmt: skip
    system = chat_system(model, processor)
    together = system.write(samples, 6)
    assert together == [system.write([sample], 6)[0] for sample in samples]
    torch.manual_seed(0)
    assert system.write(samples, 6, temperature=50.0) != together  # far above 1 all words are alike
    assert system.write(samples, 6, temperature=1e-9) == together
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert load_chat_system(tmp_path, "cpu").write(samples, 6) == together
    assert FAMILY.load("chat_system") is chat_system


def test_what_is_written_depends_on_the_picture(model, processor):
    # Small random weights hardly tell pictures apart, and a tied head says the last word again.
    model.backbone.model.multi_modal_projector.linear_2.weight.data.mul_(60)
    torch.manual_seed(0)
    model.backbone.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.backbone.lm_head.weight))
    system = chat_system(model, processor)
    red, noise = asked("a", "What is it?", "red"), asked("a", "What is it?", "white")
    assert system.write([red], 12) != system.write([noise], 12)


def test_refusals(model, processor):
    system = chat_system(model, processor)
    with pytest.raises(DataError, match="no room for an answer"):
        system.write([asked("long", "word " * 600, "red")], 6)
    token = processor.tokenizer.all_special_tokens[0]
    with pytest.raises(DataError, match="special token in the text"):
        system.write([asked("s", f"What is {token}?", "red")], 6)
