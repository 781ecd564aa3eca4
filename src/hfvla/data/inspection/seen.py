"""A row as a model sees it: the pixels its processor makes, and its tokens, those that are learned marked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["SeenRow", "SeenText", "see_row"]

_IGNORE_INDEX = -100
_MOST_PICTURES = 16


@dataclass(frozen=True)
class SeenText:
    """Neighbouring tokens.

    Attributes:
        text: decoded, special tokens among it; of a run of equal tokens the token and "x 64".
        learned: whether they are labels.
        tokens: how many.
    """

    text: str
    learned: bool
    tokens: int


@dataclass
class SeenRow:
    """What a collator makes of a row.

    Attributes:
        texts: of each sequence.
        pictures: pixels as the model gets them, normalisation undone.
        tokens: of all sequences, without padding.
        learned: of these, labels.
    """

    texts: list[list[SeenText]] = field(default_factory=list)
    pictures: list[Image.Image] = field(default_factory=list)
    tokens: int = 0
    learned: int = 0


def see_row(row: Mapping[str, Any], collator: Any, processor: ProcessorMixin) -> SeenRow:
    """Return a row as the collator of a stage gives it to the model.

    Args:
        row: of a source of the collator's family.
        collator: built for training, with the loss terms that are wanted.
        processor: with `tokenizer` and, for pictures, `image_processor`.

    Raises:
        HfvlaError: the collator cannot use the row.
    """
    batch = collator([row])
    found = SeenRow()
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is not None and batch.get("input_ids") is not None:
        _add_texts(found, batch, tokenizer)
    if batch.get("pixel_values") is not None:
        found.pictures = _pictures(batch, getattr(processor, "image_processor", None))
    return found


def _add_texts(found: SeenRow, batch: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> None:
    ids = np.asarray(batch["input_ids"])
    mask = np.asarray(batch["attention_mask"]) if batch.get("attention_mask") is not None else np.ones_like(ids)
    labels = np.asarray(batch["labels"]) if batch.get("labels") is not None else np.full_like(ids, _IGNORE_INDEX)
    for sequence, real, target in zip(ids, mask.astype(bool), labels, strict=True):
        tokens, learned = sequence[real].tolist(), (target[real] != _IGNORE_INDEX).tolist()
        found.tokens += len(tokens)
        found.learned += sum(learned)
        spans = []
        for is_learned, pairs in groupby(zip(tokens, learned, strict=True), key=lambda pair: pair[1]):
            spans += _spans([token for token, _ in pairs], is_learned, tokenizer)
        found.texts.append(spans)


def _spans(tokens: list[int], learned: bool, tokenizer: PreTrainedTokenizerBase) -> list[SeenText]:
    """Return neighbouring tokens as texts; the 64 tokens of a picture are one text, not 64."""
    spans: list[SeenText] = []
    plain: list[int] = []

    def flush() -> None:
        if plain:
            spans.append(SeenText(tokenizer.decode(plain, skip_special_tokens=False), learned, len(plain)))
            plain.clear()

    for token, run in groupby(tokens):
        count = len(list(run))
        if count < 4:
            plain.extend([token] * count)
            continue
        flush()
        spans.append(SeenText(f"{tokenizer.decode([token], skip_special_tokens=False)} x {count}", learned, count))
    flush()
    return spans


def _pictures(batch: Mapping[str, Any], image_processor: BaseImageProcessor) -> list[Image.Image]:
    pixels = batch["pixel_values"].detach().float().cpu().numpy()
    grids = batch.get("image_grid_thw")
    if pixels.ndim == 2 and grids is not None:
        arrays = _unfolded(pixels, np.asarray(grids), image_processor)
    elif pixels.ndim >= 4 and pixels.shape[-3] == 3:
        arrays = list(pixels.reshape(-1, *pixels.shape[-3:]))
    else:
        return []
    mean = np.asarray(getattr(image_processor, "image_mean", None) or (0.5,) * 3)[:, None, None]
    std = np.asarray(getattr(image_processor, "image_std", None) or (0.5,) * 3)[:, None, None]
    shown = [np.clip((array * std + mean) * 255, 0, 255).round().astype(np.uint8) for array in arrays]
    return [Image.fromarray(array.transpose(1, 2, 0)) for array in shown[:_MOST_PICTURES]]


def _unfolded(patches: np.ndarray, grids: np.ndarray, image_processor: BaseImageProcessor) -> list[np.ndarray]:
    """Return the pictures [C, H, W] of Qwen-VL's patches [N, C * time * side * side], in windows of merged ones."""
    merge = getattr(image_processor, "merge_size", 2)
    time = getattr(image_processor, "temporal_patch_size", 2)
    side = round((patches.shape[1] / (3 * time)) ** 0.5)
    found, start = [], 0
    for frames, height, width in grids.tolist():
        part = patches[start : start + frames * height * width]
        start += frames * height * width
        shape = (frames, height // merge, width // merge, merge, merge, 3, time, side, side)
        first = part.reshape(shape)[0, :, :, :, :, :, 0]  # [h, w, merge, merge, C, side, side]
        found.append(first.transpose(4, 0, 2, 5, 1, 3, 6).reshape(3, height * side, width * side))
    return found
