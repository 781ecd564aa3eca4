"""A batch of the sizes that training data has, made from the config alone: for plans without data or tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hfvla.losses.text import IGNORE_INDEX
from hfvla.models.ember_vlm.modeling_ember_vlm import TEXT_KINDS

__all__ = ["plan_batch", "plan_cached_batch"]

# Tokens beside the image's, and labelled ones among them, of the longest sequence in a batch of 32 generated tasks.
_LENGTHS = {"caption": (25, 10), "instruct": (94, 16), "selection": (33, 0), "reasoning": (212, 150)}
_CAPTION_TOKENS, _DIALOGUES_A_SAMPLE, _NGRAMS = 14, 1.5, 64
_FIRST_TEXT_TOKEN = 20  # of tiny vocabularies too; special tokens come before


def plan_batch(config: Any, batch_size: int, losses: Sequence[str]) -> dict[str, Any]:
    """Return a batch for `EmberVLMForRobotSelection.forward` as the collator makes it for these loss terms.

    Args:
        config: an `EmberVLMConfig`.
        batch_size: rows of data; one row may become several sequences.
        losses: loss terms of the stage.
    """
    kinds = _sequences(batch_size, losses)
    longest = max(_LENGTHS[kind][0] for kind in kinds)
    width = min(config.num_visual_tokens + longest, config.text_config.n_positions)
    ids = torch.full((len(kinds), width), _FIRST_TEXT_TOKEN)
    ids[:, : config.num_visual_tokens] = config.image_token_id
    mask = torch.ones_like(ids)
    mask[0, -1] = 0  # one row is shorter: a padded batch takes another attention kernel
    side = config.image_size
    batch = {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": torch.empty(len(kinds), 3, side, side, device="meta"),
    }
    if any(_LENGTHS[kind][1] for kind in kinds):
        batch["labels"] = torch.full_like(ids, IGNORE_INDEX)
        for row, kind in enumerate(kinds):
            batch["labels"][row, width - _LENGTHS[kind][1] :] = _FIRST_TEXT_TOKEN
        batch["text_kind"] = torch.tensor([TEXT_KINDS.index("reasoning" if k == "selection" else k) for k in kinds])
    if any(kind in ("selection", "reasoning") for kind in kinds):
        batch["robot_labels"] = torch.zeros(len(kinds), config.num_robots)
        batch["robot_mask"] = torch.tensor([kind in ("selection", "reasoning") for kind in kinds])
    if "consistency" in losses:
        batch["verdict_positions"] = torch.full((len(kinds), config.num_robots), width // 2)
    if config.ngram_buckets:
        batch["ngram_ids"] = torch.ones(len(kinds), _NGRAMS, dtype=torch.long)
    if "itc" in losses:
        captions = torch.full((kinds.count("caption"), _CAPTION_TOKENS), _FIRST_TEXT_TOKEN)
        batch |= {"caption_input_ids": captions, "caption_attention_mask": torch.ones_like(captions)}
    return batch


def plan_cached_batch(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch of `plan_batch` as the feature cache leaves it: the tower's maps in place of the pixels."""
    pixels = batch.pop("pixel_values")
    return {**batch, "image_features": model.encode_pixels(pixels)}


def _sequences(batch_size: int, losses: Sequence[str]) -> list[str]:
    """Return the kind of each sequence that the rows become."""
    kinds: list[str] = []
    if "itc" in losses or "caption" in losses:
        kinds += ["caption"] * batch_size
    if "instruct" in losses:
        kinds += ["instruct"] * max(1, round(_DIALOGUES_A_SAMPLE * batch_size))
    if any(name in losses for name in ("selection", "reasoning", "consistency")):
        written = "reasoning" in losses or "consistency" in losses
        kinds += ["reasoning" if written else "selection"] * batch_size
    return kinds
