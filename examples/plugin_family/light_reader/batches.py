"""From rows to what `forward` takes."""

from collections.abc import Sequence
from typing import Any

import torch


class LightReaderCollator:
    """Stacks pictures and lamps."""

    def __init__(self, processor: Any, config: Any, losses: tuple[str, ...] = (), training: bool = False) -> None:
        self.processor = processor

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return `pixel_values` [B, 3, S, S] and `labels` [B]."""
        pixels = self.processor([row["image"] for row in rows])["pixel_values"]
        return {"pixel_values": pixels, "labels": torch.tensor([row["lamp"] for row in rows])}
