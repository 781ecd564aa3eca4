"""What was found to look at: the pictures, best first, with the box that the model draws for the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from PIL import ImageDraw

from hfvla.data.pictures import load_picture
from hfvla.family import Shown
from hfvla.models.internvl_retrieval.search import encode_images, encode_texts

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.internvl_retrieval.modeling_internvl_retrieval import InternVLForRetrieval

__all__ = ["locate", "show"]

_RED = (230, 40, 40)


@torch.inference_mode()
def locate(
    model: InternVLForRetrieval, processor: ProcessorMixin, text: str, pictures: list[Any]
) -> list[tuple[float, float, float, float]]:
    """Return where in each picture a text points: left, top, right, bottom as shares of its sides.

    Args:
        model: `InternVLForRetrieval`.
        processor: its processor.
        text: a sentence.
        pictures: paths or PIL images.

    Raises:
        DataError: none of the pictures can be read.
    """
    found = encode_images(model, processor, pictures)
    features = found.features(torch.arange(len(pictures)), model.device)
    sentence = encode_texts(model, processor, [text]).to(model.device)
    features["sentence_embed"] = sentence[None].expand(len(pictures), 1, -1)
    boxes, _ = model.locate(features)
    corners = processor.boxes_to_pixels(boxes[:, 0].cpu(), 1, 1)
    return [(box[0], box[1], box[2], box[3]) for box in corners.tolist()]


def show(
    model: InternVLForRetrieval, processor: ProcessorMixin, request: Mapping[str, Any], reply: Mapping[str, Any]
) -> Shown:
    """Return an answer of `predict`, or of a search in an index, as a person looks at it."""
    results = list(reply["results"])
    pictures = [load_picture(one["path"], one["id"]) for one in results]
    boxes = locate(model, processor, str(reply["text"]), pictures) if pictures else []
    shown = []
    for one, picture, (left, top, right, bottom) in zip(results, pictures, boxes, strict=True):
        drawn, (width, height) = picture.copy(), picture.size
        corners = (left * width, top * height, max(left, right) * width, max(top, bottom) * height)
        ImageDraw.Draw(drawn).rectangle(corners, outline=_RED, width=max(2, min(width, height) // 80))
        shown.append((drawn, f"{one['rank']}: {one['score']:.3f}  {one['id'].rsplit('/', 1)[-1]}"))
    text = f"Best {len(results)} of {reply['searched']} pictures; the box is where the model sees what the text names."
    return Shown(text, pictures=shown)
