"""Where the model is cut for the feature cache: behind a frozen vision tower, before the projector."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from hfvla.data.samples.chat import ImageRef
from hfvla.data.samples.chat_pictures import load_reference
from hfvla.family import CutContext
from hfvla.models.chat_vlm.kept import KEPT, of_processor
from hfvla.models.chat_vlm.tower import FEATURES, READS, TAIL, TILES, read_tower

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = ["encode_vision", "plan_vision", "prepare_vision"]

_BESIDE = ("input_ids", "attention_mask", "labels", "token_type_ids", "mm_token_type_ids")


def prepare_vision(context: CutContext, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the processor makes of each row's pictures: {"rows": [inputs of the tower], "kept": [...]}."""
    inputs, kept = [], []
    for row in rows:
        where = f"row '{row.get('id', '?')}'"
        references = [
            ImageRef(ref["path"] or "", ref["bytes"] or b"", ref["offset"] or 0, ref["size"] or 0)
            for ref in row["images"]
        ]
        images = [load_reference(one, f"{where}, picture {n}") for n, one in enumerate(references)]
        pictures, batch = of_processor(context.processor, images, where)
        inputs.append({name: value for name, value in batch.items() if name not in _BESIDE})
        kept.append(pictures.kept())
    return {"rows": inputs, "kept": kept}


def encode_vision(model: PreTrainedModel, batch: Mapping[str, Any]) -> list[dict[str, Tensor]]:
    """Return what the model reads of its tower for each row, and what its batch needs besides."""
    device = next(model.get_encoder(modality="image").parameters()).device
    found = []
    for inputs, kept in zip(batch["rows"], batch["kept"], strict=True):
        given = {name: value.to(device) for name, value in inputs.items()}
        reads = read_tower(model, given)
        names = torch.tensor(list(json.dumps(list(reads)).encode()), dtype=torch.uint8)
        features = dict(zip(FEATURES, reads.values(), strict=False))
        found.append({**features, READS: names, KEPT: kept})
    return found


def plan_vision(model: PreTrainedModel, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch of `plan_batch` with the tower's output in place of pixels; also on the meta device."""
    pixels = batch["pixel_values"]
    tail = 1 if pixels.ndim == 2 else 3
    reads = read_tower(model, batch)
    names = list(json.dumps(list(reads)).encode())
    rest = {name: value for name, value in batch.items() if name not in ("pixel_values", "pixel_attention_mask")}
    return {
        **rest,
        **dict(zip(FEATURES, reads.values(), strict=False)),
        TILES: torch.ones(pixels.shape[:-tail], device=pixels.device),
        TAIL: torch.tensor([list(pixels.shape[-tail:])]),
        READS: torch.tensor([names], dtype=torch.uint8),
    }
