"""Any image-text model of transformers as a `ChatSystem`: batches, losses against the model's own, and refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from hfvla.backbones.image_text import image_text_system
from hfvla.data.samples.chat import ChatSample, Part, Turn, text_turn
from hfvla.data.samples.chat_pictures import blank_pictures, load_reference, reference_of
from hfvla.errors import DataError

from .tiny_llava import build


def asked(name, question, colour=None, size=(40, 24), answer=None):
    images = () if colour is None else (reference_of(Image.new("RGB", size, colour)),)
    turns = (text_turn("user", question, images=len(images)),)
    turns += () if answer is None else (text_turn("assistant", answer),)
    return ChatSample(id=name, turns=turns, images=images)


@pytest.fixture(scope="module")
def parts():
    return build()


@pytest.fixture(scope="module")
def system(parts):
    return image_text_system(*parts)


def test_a_batch_says_what_each_row_says_alone(system):
    rows = [
        asked("a", "what colour is it ?", "red"),
        asked("b", "a dog"),  # shorter, and without a picture
        asked("c", "is the picture red ?", "blue", size=(24, 60)),
        asked("d", "no"),
    ]
    together = system.write(rows, 6)
    assert together == [system.write([row], 6)[0] for row in rows]
    torch.manual_seed(0)
    assert system.write(rows, 6, temperature=50.0) != together  # far above 1 all words are alike
    assert system.write(rows, 6, temperature=1e-9) == together
    assert all(len(text.split()) <= 6 and "<" not in text.replace("<unk>", "") for text in together)


def test_the_picture_is_seen(system):
    told = {system.write([asked("a", "what colour is it ?", colour)], 8)[0] for colour in ("red", "blue", "white")}
    assert len(told) > 1
    red = asked("a", "what colour is it ?", "red")
    assert system.write([blank_pictures(red)], 8) != system.write([red], 8)


def test_losses_are_the_models_own(parts, system):
    model, processor = parts
    rows = [
        asked("a", "what colour is it ?", "red", answer="red ."),
        asked("b", "is it a dog ?", "blue", answer="no , the picture is red"),
        asked("c", "a dog ?", answer="yes"),
    ]
    found = system.answer_losses(rows)
    for row, losses in zip(rows, found, strict=True):
        assert losses.tokens.tolist() == list(system.answer_ids(row))
        assert losses.texts[-1] == "<end>"
        text = processor.apply_chat_template(
            [{"role": t.role, "content": [{"type": p.type, "text": p.text} for p in t.content]} for t in row.turns]
        ).rstrip()
        pictures = {"images": [load_reference(ref) for ref in row.images]} if row.images else {}
        inputs = processor(text=text, return_tensors="pt", **pictures)
        labels = inputs["input_ids"].clone()
        labels[:, : -len(losses.tokens)] = -100
        with torch.no_grad():
            expected = model(**inputs, labels=labels).loss.item()
        assert losses.losses.mean() == pytest.approx(expected, abs=1e-4)


def test_weights_of_half_the_size(parts, system):
    import copy

    model, processor = parts
    small = image_text_system(copy.deepcopy(model).to(torch.bfloat16), processor)
    row = asked("a", "what colour is it ?", "red", answer="red .")
    assert len(small.write([asked("a", "what colour is it ?", "red")], 4)) == 1
    exact, rough = system.answer_losses([row])[0].losses, small.answer_losses([row])[0].losses
    assert rough == pytest.approx(exact, rel=0.1, abs=0.3)


def test_the_tokenizers_end_token_ends_an_answer_too(parts):
    import copy

    model, processor = copy.deepcopy(parts[0]), parts[1]
    row = asked("a", "what colour is it ?", "red")
    words = image_text_system(model, processor).write([row], 6)[0].split()
    model.generation_config.eos_token_id = 2  # the model knows another end than its tokenizer
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer.eos_token = words[2]
    processor = copy.copy(processor)
    processor.tokenizer = tokenizer
    # A word, so that it stays in the text; after it nothing is written.
    assert image_text_system(model, processor).write([row], 6)[0].split() == words[:3] != words


def test_refusals(system):
    with pytest.raises(DataError, match="sample 'x'|x"):
        system.answer_losses([asked("x", "a dog ?")])
    film = ChatSample(id="f", turns=(Turn("user", (Part("video"), Part("text", "what ?"))),), videos=("f.mp4",))
    with pytest.raises(DataError, match="pictures only"):
        system.write([film], 4)
    gone = replace(asked("g", "what ?", "red"), images=(replace(reference_of(Image.new("RGB", (2, 2))), data=b"x"),))
    with pytest.raises(DataError, match="g, picture 0"):
        system.write([gone], 4)


def test_references_into_files_and_shards(tmp_path):
    from hfvla.data.samples.chat import ImageRef

    one, other = (reference_of(Image.new("RGB", (5, 4), colour)).data for colour in ("red", "blue"))
    (tmp_path / "shard.tar").write_bytes(one + other)
    (tmp_path / "one.png").write_bytes(one)
    assert np.asarray(load_reference(ImageRef(path=str(tmp_path / "one.png"))))[0, 0].tolist() == [255, 0, 0]
    part = ImageRef(path=str(tmp_path / "shard.tar"), offset=len(one), size=len(other))
    assert np.asarray(load_reference(part))[0, 0].tolist() == [0, 0, 255]
    with pytest.raises(DataError, match=f"expected {len(other) + 9} bytes"):
        load_reference(replace(part, size=len(other) + 9))
    with pytest.raises(DataError, match="nowhere.png"):
        load_reference(ImageRef(path=str(tmp_path / "nowhere.png"), offset=1))
