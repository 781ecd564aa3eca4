"""Maps vision features to the language model's token space."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["VisualProjector"]


class VisualProjector(nn.Module):
    """LayerNorm - Linear - GELU - Linear on each cell of a feature map, optionally pooled to a smaller grid first.

    Args:
        in_features (`int`): C, channels of the feature map.
        out_features (`int`): D, width of the language model.
        grid (`tuple[int, int]`, *optional*): (rows, columns) to average-pool to.
    """

    def __init__(self, in_features: int, out_features: int, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.grid = grid
        self.norm = nn.LayerNorm(in_features)
        self.up = nn.Linear(in_features, out_features)
        self.down = nn.Linear(out_features, out_features)

    def forward(self, feature_map: Tensor) -> Tensor:
        """Project [B, C, H, W] to [B, rows * columns, D]."""
        if self.grid is not None:
            feature_map = F.adaptive_avg_pool2d(feature_map, self.grid)
        tokens = feature_map.flatten(2).transpose(1, 2)  # [B, N, C]
        return self.down(F.gelu(self.up(self.norm(tokens))))
