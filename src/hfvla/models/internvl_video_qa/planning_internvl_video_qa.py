"""A batch of the sizes that training data has, made from the config alone: for plans without data or tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hfvla.data.choices import LETTERS
from hfvla.data.video import plan_tiles
from hfvla.losses.text import IGNORE_INDEX
from hfvla.models.internvl_video_qa.configuration_internvl_video_qa import InternVLVideoQAConfig

__all__ = ["plan_batch", "plan_cached_batch"]

_DASHCAM = (1280, 720)  # width, height of the frames that are assumed
_TEXT_TOKENS = 120  # frame marks, question, four choices, instruction; the longest of a batch
_LETTER_TOKENS, _WORD_TOKENS = 2, 8  # of an answer, with its end
_TEXT_TOKEN = 20  # of tiny vocabularies too; special tokens come before


def plan_batch(config: InternVLVideoQAConfig, batch_size: int, losses: Sequence[str]) -> dict[str, Any]:
    """Return a batch for `InternVLForVideoQA.forward` with the most frames of 720p that the config allows.

    Args:
        config: the model's config.
        batch_size: questions.
        losses: loss terms of the stage.
    """
    tiling, tokens = config.tiling, config.tokens_per_tile
    plan = plan_tiles(
        [_DASHCAM] * int(config.frames["most"]),
        tiling["token_budget"],
        max_tiles=tiling["most_tiles"],
        tokens_per_tile=tokens,
        tile_px=config.tile_size,
    )
    tiles = plan.tokens // tokens
    told, bound = (batch_size * (name in losses) for name in ("words", "binding"))
    lettered = batch_size if {"letters", "lm", "spelt"} & {*losses} or not told + bound else 0
    lettered *= 2 if {"lm", "spelt"} <= {*losses} else 1
    shown, sequences = lettered + told, lettered + told + bound  # what names a choice shows no clip
    answer = _WORD_TOKENS if "words" in losses or "spelt" in losses else _LETTER_TOKENS if "lm" in losses else 0
    positions = config.get_text_config().max_position_embeddings
    width = min(plan.tokens + _TEXT_TOKENS + answer, positions)
    ids = torch.full((sequences, width), _TEXT_TOKEN)
    ids[:shown, : plan.tokens] = config.backbone_config.image_token_id
    mask = torch.ones_like(ids)
    mask[0, -1] = 0  # one row is shorter: a padded batch takes another attention kernel
    side = config.tile_size
    batch = {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": torch.empty(batch_size * tiles, 3, side, side, device="meta"),
        "tile_index": torch.arange(shown * tiles) % (batch_size * tiles),
        "answer_positions": torch.full((sequences,), width - 1 - answer),
        "letter_labels": torch.zeros(sequences, dtype=torch.long),
        "letter_mask": torch.ones(sequences, len(LETTERS), dtype=torch.bool),
    }
    if "words" in losses:
        batch["words_mask"] = (torch.arange(sequences) >= lettered) & (torch.arange(sequences) < shown)
    if "spelt" in losses:
        batch["spelt_mask"] = (torch.arange(sequences) < lettered) & (torch.arange(sequences) >= lettered - batch_size)
    if answer:
        batch["labels"] = torch.full_like(ids, IGNORE_INDEX)
        batch["labels"][:shown, -answer:] = _TEXT_TOKEN
    if bound:
        batch["binding_labels"] = torch.where(torch.arange(sequences) >= shown, 0, -1)
    return batch if shown else {name: batch[name] for name in batch if name not in ("pixel_values", "tile_index")}


def plan_cached_batch(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch of `plan_batch` as the feature cache leaves it: projected tiles in place of the pixels."""
    if "pixel_values" not in batch:  # a stage that trains `binding` alone
        return batch
    pixels, tiles = batch.pop("pixel_values"), batch.pop("tile_index")
    features = model.get_image_features(pixels)
    return {**batch, "image_features": features.new_empty(len(tiles), *features.shape[1:])}
