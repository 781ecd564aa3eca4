"""What other programs can have of this family's models."""

from __future__ import annotations

from typing import Any

from hfvla.family import PlainBackbone

__all__ = ["plain_backbone"]


def plain_backbone(model: Any, processor: Any) -> PlainBackbone:
    """Return the image-text model of transformers that is wrapped as it is, with tokenizer and image processor."""
    return PlainBackbone("backbone", model.backbone, (processor.tokenizer, processor.image_processor), "backbone")
