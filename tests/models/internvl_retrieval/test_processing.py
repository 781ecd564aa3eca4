"""Texts padded on the left behind which an end token stands, pictures in one tile, and the way back."""

import logging

import pytest
import torch
from PIL import Image

from hfvla.errors import DataError


def test_texts_end_with_the_end_token_and_are_padded_on_the_left(processor):
    found = processor.texts(["A pool.", "There is a long blue building."])
    ids, mask, tokenizer = found["input_ids"], found["attention_mask"], processor.tokenizer
    assert ids[:, -1].tolist() == [tokenizer.eos_token_id] * 2 and mask[:, -1].all()
    assert mask[0, 0] == 0 and ids[0, 0] == tokenizer.pad_token_id and mask[1].all()
    kept = ids[0][mask[0].bool()]
    assert tokenizer.decode(kept, skip_special_tokens=True) == "A pool."


def test_long_texts_are_cut_before_the_end_token_and_named_once(processor, caplog):
    processor._cut_before = False
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            ids = processor.texts(["A pool. " * 200], ["row 7"])["input_ids"]
    assert ids.shape == (1, 96) and ids[0, -1] == processor.tokenizer.eos_token_id
    assert len(caplog.records) == 1 and "row 7 has" in caplog.text and "cut at 95" in caplog.text


@pytest.mark.parametrize("text", ["", "  ", None])
def test_a_text_without_words_is_named(processor, text):
    with pytest.raises(DataError, match="query 2: a text is empty"):
        processor.texts(["A pool.", text], ["query 1", "query 2"])


def test_a_picture_becomes_one_square_of_the_models_size(processor):
    wide = Image.new("L", (90, 40), 128)
    values = processor.images([wide, Image.new("RGBA", (20, 20))])
    assert values.shape == (2, 3, 32, 32) and values.dtype == torch.float32
    grey = (128 / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(values[0, :, 3, 3], grey, atol=1e-3, rtol=0)


def test_a_picture_that_cannot_be_read_is_named(processor, tmp_path):
    broken = tmp_path / "broken.jpeg"
    broken.write_bytes(b"no picture")
    for path, kind in ((broken, "UnidentifiedImageError"), (tmp_path / "none.jpeg", "FileNotFoundError")):
        with pytest.raises(DataError, match=f"row 3: the picture cannot be read.*{path.name}.*{kind}"):
            processor.images([str(path)], ["row 3"])


def test_call_takes_one_or_several(processor, rows):
    one = processor(images=rows[0]["image"], text="A pool.")
    assert set(one) == {"pixel_values", "input_ids", "attention_mask"} and len(one["pixel_values"]) == 1
    assert len(processor(text=["A pool.", "A pond."])["input_ids"]) == 2
    with pytest.raises(DataError, match="nothing to encode"):
        processor()


def test_boxes_back_to_pixels(processor):
    # Centre (0.5, 0.25), half as wide and half as high as the picture of 200 x 80.
    corners = processor.boxes_to_pixels(torch.tensor([[0.5, 0.25, 0.5, 0.5], [0.9, 0.5, 0.4, 2.0]]), 200, 80)
    assert corners.tolist() == [[50.0, 0.0, 150.0, 40.0], [pytest.approx(140.0), 0.0, 200.0, 80.0]]


def test_relations_back_to_words(processor):
    logits = torch.tensor([0.1, 0.0, 2.0, 3.0, 0.0, 1.0])
    assert processor.relation_words(logits) == {"horizontal": "right", "vertical": "upper"}
