"""A timm network as a vision tower: its last feature map, whatever the architecture calls its layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hfvla.errors import CheckpointError

__all__ = ["TimmTower"]


class TimmTower(nn.Module):
    """A timm backbone that returns its last feature map.

    Args:
        architecture: timm's name.
        model_args: further arguments of `timm.create_model`.
        channels: C of the map, as the config says; `num_features` of the architecture.

    Raises:
        CheckpointError: the architecture has another number of channels.
    """

    def __init__(self, architecture: str, model_args: Mapping[str, Any] | None, channels: int) -> None:
        super().__init__()
        import timm  # takes seconds, and models are imported by whoever imports transformers' Auto classes

        self.backbone = timm.create_model(architecture, pretrained=False, num_classes=0, **(model_args or {}))
        if self.backbone.num_features != channels:
            raise CheckpointError(
                f"{architecture} has {self.backbone.num_features} output channels",
                where="vision_hidden_size",
                got=channels,
                expected=self.backbone.num_features,
            )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encode [N, 3, S, S] to [N, C, S / stride, S / stride]."""
        return self.backbone.forward_features(pixel_values)
