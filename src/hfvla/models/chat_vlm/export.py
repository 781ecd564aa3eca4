"""What other programs can have of this family's models: all of it, for they are models of transformers as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hfvla.family import PlainBackbone

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["plain_backbone"]


def plain_backbone(model: PreTrainedModel, processor: ProcessorMixin) -> PlainBackbone:
    """Return the model itself with its processor; it began from the recipe's `model.pretrained`."""
    return PlainBackbone("", model, (processor,), "")
