"""From rows of captioned images to batches, and the text that a tokenizer is learned on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hfvla.data.rows.agreement import check_agreement
from hfvla.data.rows.epoch import AUGMENTATION_SEED
from hfvla.data.rows.group_ids import group_ids
from hfvla.errors import DataError
from hfvla.family import CACHED_FEATURES, as_names
from hfvla.models.internvl_retrieval.configuration_internvl_retrieval import InternVLRetrievalConfig
from hfvla.models.internvl_retrieval.processing_internvl_retrieval import IMAGE_PROMPT_TEXT, InternVLRetrievalProcessor

if TYPE_CHECKING:
    from hfvla.models.internvl_retrieval.modeling_internvl_retrieval import InternVLForRetrieval

__all__ = ["InternVLRetrievalCollator", "plan_batch", "plan_image_states", "plan_pair_states", "training_texts"]

_NOTHING = "-"  # in a sentence slot that is not used


class InternVLRetrievalCollator:
    """Reads pictures and encodes captions; with terms on boxes also sentences.

    Images and captions are there for every term, `negative_seeds` for "itm", sentences for "bbox" and "spatial".
    Boxes, groups and image ids are labels, and there always. The hard negatives of a training row are drawn from its
    seed in this epoch, so that a resumed run draws the same; those of any other row from its id.

    Args:
        processor: the checkpoint's processor.
        config: the model's config.
        losses: loss terms of the stage.
        training: taken for the contract; rows say themselves whether they train.
    """

    def __init__(
        self,
        processor: InternVLRetrievalProcessor,
        config: InternVLRetrievalConfig,
        losses: Sequence[str] = ("itc",),
        training: bool = True,
    ) -> None:
        check_agreement(processor, config, ("max_text_tokens",), "InternVLRetrievalCollator")
        self.processor, self.config, self.losses, self.training = processor, config, as_names(losses), training

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return a batch for `InternVLForRetrieval.forward`; see there for shapes.

        Raises:
            DataError: a picture cannot be read, a caption is empty, or sentences and boxes do not fit.
        """
        names = [str(row["id"]) for row in rows]
        batch = self._images(rows, names)
        if "text_pooled" not in batch:
            batch |= self.processor.texts([row["caption"] for row in rows], names)
        boxes, mask = self._boxes(rows)
        batch |= {
            "group_ids": torch.tensor(group_ids(row["group"] for row in rows)),
            "image_ids": torch.tensor(group_ids(row["image_id"] or row["image"] for row in rows)),
            "boxes": boxes,
            "box_mask": mask,
        }
        if "itm" in self.losses:
            batch["negative_seeds"] = torch.tensor(
                [row.get(AUGMENTATION_SEED, seed) for row, seed in zip(rows, group_ids(names), strict=True)]
            )
        if ("bbox" in self.losses or "spatial" in self.losses) and "sentence_pooled" not in batch:
            batch |= self._sentences(rows, names)
        return batch

    def _images(self, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Tensor]:
        if CACHED_FEATURES in rows[0]:
            cached = [row[CACHED_FEATURES] for row in rows]
            return {name: torch.stack([found[name] for found in cached]) for name in cached[0]}
        return {"pixel_values": self.processor.images([row["image"] for row in rows], names)}

    def _boxes(self, rows: Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
        """Return boxes [B, S, 4], zeros in unused slots, and their mask [B, S]."""
        slots = self.config.sentence_slots
        boxes, mask = torch.zeros(len(rows), slots, 4), torch.zeros(len(rows), slots, dtype=torch.bool)
        for number, row in enumerate(rows):
            count = len(row["boxes"])
            if count != len(row["sentences"]) or count > slots:
                raise DataError(
                    "sentences and boxes do not fit",
                    where=str(row["id"]),
                    got=f"{len(row['sentences'])} sentences, {count} boxes",
                    expected=f"as many of both, at most {slots} (sentence_slots)",
                )
            if count:
                boxes[number, :count] = torch.tensor(row["boxes"])
                mask[number, :count] = True
        return boxes, mask

    def _sentences(self, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Tensor]:
        """Return sentence_input_ids and sentence_attention_mask [B, S, T]."""
        slots = self.config.sentence_slots
        texts, places = [], []
        for row, name in zip(rows, names, strict=True):
            texts += [*row["sentences"], *[_NOTHING] * (slots - len(row["sentences"]))]
            places += [f"{name}, sentence {slot + 1}" for slot in range(slots)]
        encoded = self.processor.texts(texts, places)
        return {f"sentence_{name}": value.unflatten(0, (len(rows), slots)) for name, value in encoded.items()}


def training_texts(rows: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Yield the texts of the rows that a tokenizer is learned on."""
    yield from [IMAGE_PROMPT_TEXT] * 64
    for row in rows:
        yield row["caption"]
        yield from row["sentences"]


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


def plan_image_states(model: InternVLForRetrieval, batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch of `plan_batch` as the feature cache leaves it: what the tower gives in place of the pixels."""
    states = model.encode_pixels(batch.pop("pixel_values"))
    found = {"image_pooled": states.pooled, "image_tokens": states.tokens}
    return batch | {name: value for name, value in found.items() if value is not None}


def plan_pair_states(model: InternVLForRetrieval, batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch of `plan_batch` as the feature cache leaves it where both towers are frozen."""
    texts = model.encode_text(batch.pop("input_ids"), batch.pop("attention_mask"))[1]
    found = {"text_pooled": texts}
    if "sentence_input_ids" in batch:
        ids, mask = batch.pop("sentence_input_ids"), batch.pop("sentence_attention_mask")
        pooled = model.encode_text(ids.flatten(0, 1), mask.flatten(0, 1))[1]
        found["sentence_pooled"] = pooled.unflatten(0, ids.shape[:2])
    return plan_image_states(model, batch) | found


def _texts(shape: tuple[int, ...], width: int, prefix: str) -> dict[str, torch.Tensor]:
    ids = torch.full((*shape, width), _TEXT_TOKEN)
    mask = torch.ones_like(ids)
    mask.view(-1, width)[0, 0] = 0  # one row is shorter: a padded batch takes another attention kernel
    return {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask}
