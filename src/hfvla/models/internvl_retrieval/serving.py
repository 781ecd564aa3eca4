"""What a server asks of InternVL for retrieval: several searches in one pass, and its space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hfvla.errors import HfvlaError
from hfvla.models.internvl_retrieval.search import encode_images, encode_texts, ranking, unit

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.internvl_retrieval.modeling_internvl_retrieval import InternVLForRetrieval

__all__ = ["facts", "predict_batch"]

_BATCH = 32


def predict_batch(
    model: InternVLForRetrieval, processor: ProcessorMixin, requests: Sequence[Mapping[str, Any]]
) -> list[Any]:
    """Rank the pictures of several requests; all pictures and all texts are encoded together.

    Args:
        model: `InternVLForRetrieval`.
        processor: its processor.
        requests: as `FAMILY.request` says, with `images`; a folder is searched one request at a time.

    Returns:
        An answer for each request, or its `HfvlaError`.

    Raises:
        HfvlaError: the requests cannot be answered together.
    """
    pictures = [image for request in requests for image in request["images"]]
    found = encode_images(model, processor, pictures, batch_size=_BATCH)
    failures: dict[int, str] = {}
    texts = [str(request["text"]) for request in requests]
    words = unit(encode_texts(model, processor, texts, batch_size=_BATCH, failures=failures))
    answers: list[Any] = []
    start = 0
    for number, request in enumerate(requests):
        own = range(start, start + len(request["images"]))
        start = own.stop
        lost = {place - own.start: found.failures[place] for place in own if place in found.failures}
        try:
            answers.append(ranking(request, unit(found.embed[own.start : own.stop]), words[number], lost,
                                   failures.get(number)))  # fmt: skip
        except HfvlaError as error:
            answers.append(error)
    return answers


def facts(model: InternVLForRetrieval, processor: ProcessorMixin) -> dict[str, Any]:
    """Return how wide the space of pictures and texts is, and what is cut to fit."""
    space = {"width": int(model.config.embed_dim), "text_tokens": processor.max_text_tokens}
    return {"space": {**space, "picture_side": int(model.config.image_size)}}
