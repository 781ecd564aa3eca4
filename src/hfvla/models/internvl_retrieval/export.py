"""What other programs can have of this family's models: the backbone alone, and two towers.

    image      pixels            -> unit vector
    text       tokens            -> unit vector

A picture and a text belong together as far as their vectors point the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfvla.family import Answers, ExportPart, ExportPlan, PlainBackbone

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.internvl_retrieval.modeling_internvl_retrieval import InternVLForRetrieval

__all__ = ["export_plan", "plain_backbone"]

_TOKENS = 12


def plain_backbone(model: InternVLForRetrieval, processor: ProcessorMixin) -> PlainBackbone:
    """Return the image-text model of transformers that is wrapped as it is, with tokenizer and image processor."""
    return PlainBackbone("backbone", model.backbone, (processor.tokenizer, processor.image_processor), "backbone")


class _Image(nn.Module):
    def __init__(self, model: InternVLForRetrieval) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor]:
        return (F.normalize(self.model.get_image_features(pixel_values).pooler_output.float(), dim=-1),)


class _Text(nn.Module):
    def __init__(self, model: InternVLForRetrieval) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
        return (F.normalize(self.model.get_text_features(input_ids, attention_mask).pooler_output.float(), dim=-1),)


def export_plan(model: InternVLForRetrieval, processor: ProcessorMixin) -> ExportPlan:
    """Return the towers; a row's caption is answered by the picture that it finds among those of all rows."""
    vision = model.config.backbone_config.vision_config
    pixels = torch.zeros(2, 3, *vision.image_size)
    ids = (torch.arange(2 * _TOKENS) % 7 + 12).view(2, _TOKENS)
    batch, time = {0: "batch"}, {0: "batch", 1: "time"}
    texts = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    parts = (
        ExportPart("image", _Image(model).eval(), {"pixel_values": pixels}, ("vector",), {"pixel_values": batch}),
        ExportPart("text", _Text(model).eval(), texts, ("vector",), {"input_ids": time, "attention_mask": time}),
    )
    return ExportPlan(parts, _Answers(processor), {"image": 1e-4, "text": 1e-4})


class _Answers:
    """Every caption is a query, and every different picture is in the gallery."""

    def __init__(self, processor: ProcessorMixin) -> None:
        self.processor = processor

    def __call__(self, run: Any, rows: Sequence[Mapping[str, Any]]) -> Answers:
        paths = list(dict.fromkeys(row["image"] for row in rows))
        images = [_vector(run("image", {"pixel_values": self.processor.images([path])})) for path in paths]
        texts = [_vector(run("text", self.processor.texts([row["caption"]]))) for row in rows]
        found = (np.stack(texts) @ np.stack(images).T).argmax(1)
        groups = {row["image"]: row["group"] for row in rows}
        hits = [float(groups[paths[number]] == row["group"]) for number, row in zip(found, rows, strict=True)]
        return Answers({"image": images, "text": texts}, [int(number) for number in found], {"hit_at_1": hits})


def _vector(found: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(found["vector"], dtype=np.float64)[0]
