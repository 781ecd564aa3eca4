"""A batch of the sizes that training data has, made from the config alone: for plans without data or tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hfvla.models.internvl_retrieval.configuration_internvl_retrieval import InternVLRetrievalConfig

__all__ = ["plan_batch", "plan_cached_batch"]

_CAPTION_TOKENS, _SENTENCE_TOKENS = 110, 40  # the longest of a batch of GeoText-1652
_TEXT_TOKEN = 20  # of tiny vocabularies too; special tokens come before


def plan_batch(config: InternVLRetrievalConfig, batch_size: int, losses: Sequence[str]) -> dict[str, Any]:
    """Return a batch for `InternVLForRetrieval.forward` in which every sentence slot has a box.

    Args:
        config: the model's config.
        batch_size: rows.
        losses: loss terms of the stage.
    """
    side, slots = config.image_size, config.sentence_slots
    batch: dict[str, Any] = {
        "pixel_values": torch.empty(batch_size, 3, side, side, device="meta"),
        "group_ids": torch.empty(batch_size, dtype=torch.long, device="meta"),
        "boxes": torch.empty(batch_size, slots, 4, device="meta"),
        "box_mask": torch.ones(batch_size, slots, dtype=torch.bool),
        **_texts((batch_size,), min(_CAPTION_TOKENS, config.max_text_tokens), ""),
    }
    if "itm" in losses:
        batch["negative_seeds"] = torch.arange(batch_size)
    if "bbox" in losses or "spatial" in losses:
        batch |= _texts((batch_size, slots), min(_SENTENCE_TOKENS, config.max_text_tokens), "sentence_")
    return batch


def plan_cached_batch(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch of `plan_batch` as the feature cache leaves it: what the tower gives in place of the pixels."""
    states = model.encode_pixels(batch.pop("pixel_values"))
    found = {"image_pooled": states.pooled, "image_tokens": states.tokens}
    return batch | {name: value for name, value in found.items() if value is not None}


def _texts(shape: tuple[int, ...], width: int, prefix: str) -> dict[str, torch.Tensor]:
    ids = torch.full((*shape, width), _TEXT_TOKEN)
    mask = torch.ones_like(ids)
    mask.view(-1, width)[0, 0] = 0  # one row is shorter: a padded batch takes another attention kernel
    return {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask}
