"""Where the model is cut for the feature cache: behind a frozen vision tower, before the projector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from hfvla.data.samples.chat import ImageRef
from hfvla.data.samples.chat_pictures import load_reference
from hfvla.family import CutContext
from hfvla.models.chat_vlm.kept import KEPT, as_kept, of_clips, of_pictures
from hfvla.models.chat_vlm.tower import IMAGES, VIDEOS, Slot, kept_of, read_tower
from hfvla.models.chat_vlm.videos import read_clip

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = ["encode_vision", "plan_vision", "prepare_vision"]

_BESIDE = ("input_ids", "attention_mask", "labels", "token_type_ids", "mm_token_type_ids")


def prepare_vision(context: CutContext, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the processor makes of each row's pictures and videos.

    Returns:
        `dict`: {"rows": [{slot: inputs of the tower}], "kept": [what is kept beside features]}.
    """
    inputs, kept = [], []
    for row in rows:
        where = f"row '{row.get('id', '?')}'"
        references = [
            ImageRef(ref["path"] or "", ref["bytes"] or b"", ref["offset"] or 0, ref["size"] or 0)
            for ref in row["images"]
        ]
        images = [load_reference(one, f"{where}, picture {n}") for n, one in enumerate(references)]
        paths = row.get("videos") or ()
        clips = [read_clip(context.processor, path, f"{where}, video {n}") for n, path in enumerate(paths)]
        found: dict[Slot, dict[str, Tensor]] = {}
        pictures = videos = None
        if images:
            pictures, found[IMAGES] = of_pictures(context.processor, images, where)
        if clips:
            videos, found[VIDEOS] = of_clips(context.processor, clips, where)
        inputs.append({slot: {n: v for n, v in one.items() if n not in _BESIDE} for slot, one in found.items()})
        kept.append(as_kept(pictures, videos))
    return {"rows": inputs, "kept": kept}


def encode_vision(model: PreTrainedModel, batch: Mapping[str, Any]) -> list[dict[str, Tensor]]:
    """Return what the model reads of its tower for each row, and what its batch needs besides."""
    device = next(model.get_encoder(modality="image").parameters()).device
    found = []
    for inputs, kept in zip(batch["rows"], batch["kept"], strict=True):
        features: dict[str, Tensor] = {}
        for slot, given in inputs.items():
            asked = slot if slot.pixels in given else IMAGES  # of a model with one name for pictures and videos
            reads = read_tower(model, {name: value.to(device) for name, value in given.items()}, asked)
            features |= kept_of(reads, slot)
        found.append({**features, KEPT: kept})
    return found


def plan_vision(model: PreTrainedModel, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch of `plan_batch` with the tower's output in place of pixels; also on the meta device."""
    pixels = batch["pixel_values"]
    tail = 1 if pixels.ndim == 2 else 3
    rest = {name: value for name, value in batch.items() if name not in ("pixel_values", "pixel_attention_mask")}
    found = kept_of(read_tower(model, batch), IMAGES)
    return {
        **rest,
        **found,
        IMAGES.tiles: torch.ones(pixels.shape[:-tail], device=pixels.device),
        IMAGES.tail: torch.tensor([list(pixels.shape[-tail:])]),
        IMAGES.reads: found[IMAGES.reads][None],
    }
