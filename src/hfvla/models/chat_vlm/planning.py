"""A batch of the sizes that training has, made from the config alone, for plans of memory and time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from hfvla.models.chat_vlm.objective import PAIRS, WEIGHTS

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["plan_batch"]

_TEXT_TOKENS, _ANSWER_TOKENS, _TEXT_TOKEN = 160, 64, 20
_SIDE = 448  # pixels of a picture, where the model takes any size


def plan_batch(config: PreTrainedConfig, batch_size: int, losses: Sequence[str]) -> dict[str, Any]:
    """Return a batch with one picture a row, 160 tokens of text and an answer of 64.

    Args:
        config: of a model of transformers.
        batch_size: rows.
        losses: loss terms of the stage; `dpo` takes two sequences a row.
    """
    sequences = batch_size * (2 if "dpo" in losses else 1)
    tokens, pictures = _pictures(config, sequences)
    most = getattr(config.get_text_config(), "max_position_embeddings", None) or 4096
    width = min(tokens + _TEXT_TOKENS + _ANSWER_TOKENS, int(most))
    vocabulary = config.get_text_config().vocab_size
    ids = torch.full((sequences, width), min(_TEXT_TOKEN, vocabulary - 1))
    image = getattr(config, "image_token_id", None)
    if pictures and image is not None:
        ids[:, :tokens] = image
    mask = torch.ones_like(ids)
    mask[0, -1] = 0  # one row is shorter: a padded batch takes another attention kernel
    labels = torch.full_like(ids, -100)
    labels[:, -_ANSWER_TOKENS:] = min(_TEXT_TOKEN, vocabulary - 1)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels, **pictures}
    batch[WEIGHTS] = torch.ones(sequences)
    if "image_grid_thw" in pictures:
        batch["mm_token_type_ids"] = (ids == image).long()
    if config.model_type in ("gemma3", "paligemma"):
        batch["token_type_ids"] = (ids == image).long() if config.model_type == "gemma3" else (labels != -100).long()
    if "dpo" in losses:
        batch[PAIRS] = torch.stack([torch.arange(batch_size), torch.arange(batch_size) + batch_size], 1)
    return batch


def _pictures(config: PreTrainedConfig, count: int) -> tuple[int, dict[str, Any]]:
    """Return the tokens of a picture, and `count` of them as the model takes them; none for kinds not known here."""
    vision = getattr(config, "vision_config", None)
    if vision is None:
        return 0, {}
    if hasattr(vision, "spatial_merge_size"):
        merge = vision.spatial_merge_size
        side = max(merge, round(_SIDE / vision.patch_size / merge) * merge)  # patches
        depth = getattr(vision, "in_channels", 3) * vision.temporal_patch_size * vision.patch_size**2
        pixels = torch.empty(count * side**2, depth, device="meta")
        return (side // merge) ** 2, {
            "pixel_values": pixels,
            "image_grid_thw": torch.tensor([[1, side, side]] * count),
        }
    size, patch = (_one(getattr(vision, name, None)) for name in ("image_size", "patch_size"))
    if size is None or patch is None:
        return 0, {}
    grid = (size // patch) ** 2
    kind = config.model_type
    pixels = torch.empty(count, 3, size, size, device="meta")
    if kind == "internvl":
        return int(config.image_seq_length), {"pixel_values": pixels}
    if kind == "gemma3":
        return int(config.mm_tokens_per_image), {"pixel_values": pixels}
    if kind in ("llava", "paligemma"):
        return grid, {"pixel_values": pixels}
    return 0, {}


def _one(value: Any) -> int | None:
    value = value[0] if isinstance(value, list | tuple) else value
    return None if value is None else int(value)
