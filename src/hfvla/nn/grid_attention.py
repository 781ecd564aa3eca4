"""Texts that look where in an image they belong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GridAttention"]


class GridAttention(nn.Module):
    """Attention of text vectors over the tokens of an image's grid, then a small feed-forward layer.

    Pooling an image loses where things are; here each token carries a learned row and column position, in its key and
    in its value, so that the output says where the text found its object.

    Shapes: B images, S texts an image, G = rows * columns tokens, D width.

    Args:
        width (`int`): D.
        grid (`tuple[int, int]`): (rows, columns).
        heads (`int`): attention heads; D must be a multiple.
        dropout (`float`): on the attention weights and before each residual sum.

    Raises:
        ValueError: D is not a multiple of `heads`.
    """

    def __init__(self, width: int, grid: tuple[int, int], heads: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"GridAttention: width {width} is not a multiple of {heads} heads")
        self.grid, self.heads, self.attention_dropout = tuple(grid), heads, dropout
        self.row_positions = nn.Parameter(torch.empty(grid[0], width))
        self.column_positions = nn.Parameter(torch.empty(grid[1], width))
        self.query_norm, self.grid_norm, self.output_norm = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)
        self.reset_positions()

    def no_weight_decay(self) -> set[str]:
        """Return the positions: weight decay would pull them to zero."""
        return {"row_positions", "column_positions"}

    def reset_positions(self) -> None:
        """Draw new positions; a `PreTrainedModel` must call it in its `_init_weights`."""
        for positions in (self.row_positions, self.column_positions):
            nn.init.normal_(positions, std=0.5)  # beside tokens of unit variance: seen, and no more than half of them

    def forward(self, texts: Tensor, tokens: Tensor) -> Tensor:
        """Read from each text's image.

        Args:
            texts (`Tensor`): [B, S, D].
            tokens (`Tensor`): [B, G, D], row by row.

        Returns:
            `Tensor`: [B, S, D].

        Raises:
            ValueError: the number of tokens is not that of the grid.
        """
        rows, columns = self.grid
        if tokens.shape[1] != rows * columns:
            raise ValueError(f"GridAttention: {tokens.shape[1]} tokens; expected {rows} x {columns} of the grid")
        positions = self.row_positions[:, None] + self.column_positions[None, :]  # [rows, columns, D]
        tokens = self.grid_norm(tokens) + positions.flatten(0, 1)
        query, key, value = (
            self._split(layer(given))
            for layer, given in (
                (self.query, self.query_norm(texts)),
                (self.key, tokens),
                (self.value, tokens),
            )
        )
        dropout = self.attention_dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)  # [B, heads, S, D / heads]
        hidden = texts + self.dropout(self.output(found.transpose(1, 2).flatten(2)))
        return hidden + self.dropout(self.down(F.gelu(self.up(self.output_norm(hidden)))))

    def _split(self, hidden: Tensor) -> Tensor:
        return hidden.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, N, D / heads]
