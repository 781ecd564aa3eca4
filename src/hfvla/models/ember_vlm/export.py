"""What other programs can have of this family's models."""

from __future__ import annotations

from typing import Any

from hfvla.family import PlainBackbone

__all__ = ["plain_backbone"]


def plain_backbone(model: Any, processor: Any) -> PlainBackbone:
    """Return the GPT-2-style language model with its tokenizer."""
    return PlainBackbone("language_model", model.language_model, (processor.tokenizer,), "language")
