"""Contact sheets: boxes in their place, what is learned marked, no text taken for HTML; a model's view of a row."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

from hfvla.data.inspection.sampling import sheet_samples
from hfvla.data.inspection.seen import see_row
from hfvla.data.inspection.sheet import draw_boxes, sheet_html

from .sets import box, encoded, rows_of, sample, scene

WORDS = {1: "<s>", 2: "What", 3: " is it", 4: "A cat", 7: "<image>"}


class Words:
    def decode(self, tokens, skip_special_tokens):
        return "".join(WORDS[token] for token in tokens)


class Processor:
    tokenizer = Words()
    image_processor = None


def test_boxes_are_drawn_at_their_place():
    white = Image.new("RGB", (96, 64), "white")
    drawn = np.asarray(draw_boxes(white, [box(label="", xyxy=(24.0, 16.0, 72.0, 48.0))]))
    coloured = np.argwhere((drawn != 255).any(-1))
    # A quarter of width and height, and three quarters: 23.75 and 71.25 of 95 pixels, 15.75 and 47.25 of 63.
    assert coloured.min(0) == pytest.approx([16, 24], abs=1) and coloured.max(0) == pytest.approx([47, 71], abs=1)
    assert (drawn[30:34, 40:50] == 255).all()


def test_large_pictures_are_shown_small():
    assert max(draw_boxes(Image.new("RGB", (2000, 500)), ()).size) <= 256


def test_the_page_marks_what_is_learned_and_escapes_texts():
    rows = rows_of([sample(1, encoded(scene(1)), "<script>alert(1)</script>", "Two & two")])
    page = sheet_html("set", sheet_samples(rows, 5), "note")
    assert "<mark>Two &amp; two</mark>" in page and "<script>" not in page and "&lt;script&gt;" in page
    assert page.count('src="data:image/jpeg;base64,') == 1 and "http" not in page


def test_what_cannot_be_shown_says_why():
    page = sheet_html("set", sheet_samples(rows_of([sample(1, b"broken")]), 5))
    assert 'class="error"' in page and "s1" in page


def test_samples_as_a_model_sees_them():
    def collator(rows):
        ids = torch.tensor([[1, *[7] * 9, 2, 3, 4, 0]])
        labels = torch.tensor([[-100] * 12 + [4, -100]])
        pixels = torch.zeros(1, 3, 8, 8)
        return {"input_ids": ids, "labels": labels, "attention_mask": (ids > 0).long(), "pixel_values": pixels}

    seen = see_row({}, collator, Processor())
    assert [(span.text, span.learned, span.tokens) for span in seen.texts[0]] == [
        ("<s>", False, 1), ("<image> x 9", False, 9), ("What is it", False, 2), ("A cat", True, 1),
    ]  # fmt: skip
    assert (seen.tokens, seen.learned) == (13, 1)
    assert seen.pictures[0].size == (8, 8) and seen.pictures[0].getpixel((0, 0)) == (128, 128, 128)
    page = sheet_html("set", sheet_samples(rows_of([sample(1, encoded(scene(1)))]), 1, viewer=lambda row: seen))
    assert "<mark>A cat</mark>" in page and "13 tokens, 1 learned" in page and "as the model sees it" in page


def test_patches_of_qwen_become_the_pictures_that_they_were():
    processor = Qwen2VLImageProcessor(
        patch_size=4, merge_size=2, temporal_patch_size=2, min_pixels=64, max_pixels=2**20
    )
    pictures = [scene(1, (64, 48)), scene(2, (40, 80))]
    batch = processor(images=pictures, return_tensors="pt")

    class Qwen:
        image_processor = processor

    seen = see_row({}, lambda rows: batch, Qwen())
    assert [picture.size for picture in seen.pictures] == [(64, 48), (40, 80)]
    for one, other in zip(pictures, seen.pictures, strict=True):
        assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 1
