"""What a family says of its models to those who take them elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["PlainBackbone"]


@dataclass(frozen=True)
class PlainBackbone:
    """The transformers model inside a family's model.

    Args:
        module: its name in the family's model, e.g. "backbone".
        model: a `PreTrainedModel` of a class that transformers itself has.
        processor: what is saved beside it for `AutoProcessor` or `AutoTokenizer`: things with `save_pretrained`.
        option: key in a recipe's `model.options` that names the checkpoint it began from.
    """

    module: str
    model: Any
    processor: tuple[Any, ...]
    option: str
