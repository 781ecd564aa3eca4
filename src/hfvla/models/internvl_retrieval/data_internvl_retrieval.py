"""From rows of captioned images to batches, and the text that a tokenizer is learned on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hfvla.data.agreement import check_agreement
from hfvla.data.epoch import AUGMENTATION_SEED
from hfvla.data.group_ids import group_ids
from hfvla.errors import DataError
from hfvla.family import CACHED_FEATURES, as_names
from hfvla.models.internvl_retrieval.configuration_internvl_retrieval import InternVLRetrievalConfig
from hfvla.models.internvl_retrieval.processing_internvl_retrieval import IMAGE_PROMPT_TEXT, InternVLRetrievalProcessor

__all__ = ["InternVLRetrievalCollator", "training_texts"]

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
        batch = {**self.processor.texts([row["caption"] for row in rows], names), **self._images(rows, names)}
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
        if "bbox" in self.losses or "spatial" in self.losses:
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
