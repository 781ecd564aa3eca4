"""Positions of packed sequences, also for models that place pictures in time, height and width (M-RoPE)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["packed_position_ids"]

_GRIDS = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")


def packed_position_ids(core: Any, batch: Mapping[str, Any]) -> Tensor:
    """Return `position_ids` for a model's forward on a packed batch.

    Models of Qwen-VL's kind compute three positions a token from the whole row, which a packed row would mislead:
    theirs are computed for each sample alone (`get_rope_index`) and put side by side. The text positions go before
    them, for from these transformers tells where a sequence begins.

    Args:
        core: the model with or without its head, e.g. `Qwen2_5_VLForConditionalGeneration` or any other.
        batch: of `hfvla.data.packing.pack_batch`.

    Returns:
        `Tensor`: [B, T] long; [4, B, T] (text, time, height, width) for models with `get_rope_index`.
    """
    text = batch["position_ids"]
    model = core if hasattr(core, "get_rope_index") else getattr(core, "model", None)
    if model is None or not hasattr(model, "get_rope_index"):
        return text
    if not any(batch.get(name) is not None for name in _GRIDS[:2]):
        return text.expand(4, *text.shape)
    rows, starts = (text == text.min()).nonzero(as_tuple=True)  # of every sequence, padding among them
    ends = torch.cat([starts[1:], starts.new_zeros(1)])
    ends = torch.where(torch.cat([rows[1:] != rows[:-1], rows.new_ones(1, dtype=torch.bool)]), text.shape[1], ends)
    places = starts[:, None] + torch.arange(int((ends - starts).max()), device=text.device)  # [S, longest]
    mask = places < ends[:, None]
    places = places.clamp(max=text.shape[1] - 1)
    kinds = batch.get("mm_token_type_ids")
    given = {name: batch[name] for name in _GRIDS if batch.get(name) is not None}
    if kinds is not None:
        given["mm_token_type_ids"] = kinds[rows[:, None], places]
    found, _ = model.get_rope_index(
        input_ids=batch["input_ids"][rows[:, None], places], attention_mask=mask.long(), **given
    )  # [3, S, longest]
    positions = text.expand(3, *text.shape).clone()
    where = (rows[:, None].expand_as(places)[mask], places[mask])
    positions[:, where[0], where[1]] = found[:, mask].to(positions.dtype)
    return torch.cat([text[None], positions])
