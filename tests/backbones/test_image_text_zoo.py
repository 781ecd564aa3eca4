"""One image-text model of each architecture as a `ChatSystem`, by its own processor."""

import numpy as np
import pytest
import torch
from PIL import Image

from hfvla.backbones.image_text import image_text_system
from hfvla.data.samples.chat import ChatSample, text_turn
from hfvla.data.samples.chat_pictures import load_reference, reference_of

from ..models.chat_vlm.zoo import MAKERS, made


def asked(name, question, colour=None, size=(40, 24), answer=None):
    images = () if colour is None else (reference_of(Image.new("RGB", size, colour)),)
    turns = (text_turn("user", question, images=len(images)),)
    turns += () if answer is None else (text_turn("assistant", answer),)
    return ChatSample(id=name, turns=turns, images=images)


TEMPLATED = sorted(name for name in MAKERS if name != "paligemma")  # which has no chat template


@pytest.mark.parametrize("name", TEMPLATED)
def test_batches_and_losses(name):
    model, processor = made(name)
    system = image_text_system(model.eval(), processor)
    rows = [
        asked("a", "What colour is the circle?", "red"),
        asked("b", "yes no", "blue", size=(24, 60)),
        asked("c", "red green"),
    ]
    assert system.write(rows, 4) == [system.write([row], 4)[0] for row in rows]
    whole = [asked("a", "What colour is the circle?", "red", answer="red"), asked("c", "red?", answer="no yes")]
    found = system.answer_losses(whole)
    for row, losses in zip(whole, found, strict=True):
        assert losses.tokens.tolist() == list(system.answer_ids(row))
        turns = [{"role": t.role, "content": [{"type": p.type, "text": p.text} for p in t.content]} for t in row.turns]
        text = processor.apply_chat_template(turns, tokenize=False).rstrip("\n")
        pictures = {"images": [[load_reference(ref) for ref in row.images]]} if row.images else {}
        inputs = processor(text=[text], return_tensors="pt", **pictures)
        with torch.no_grad():
            logits = model(**inputs).logits[0].float().log_softmax(-1)
        count = len(losses.tokens)
        chances = logits[-count - 1 : -1].gather(1, torch.from_numpy(losses.tokens)[:, None])[:, 0]
        np.testing.assert_allclose(losses.losses, -chances.numpy(), atol=1e-3)
