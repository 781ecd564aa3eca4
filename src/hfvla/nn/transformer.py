"""One pre-norm transformer layer whose masked tokens have no influence, NaN included, and positions for any length."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["KeyValue", "TransformerLayer", "fill_masked", "open_empty_rows", "sinusoidal_embedding"]


class KeyValue(NamedTuple):
    """Projected tokens that a layer attends to; kept between calls that read the same tokens.

    Attributes:
        key (`Tensor`): [B, heads, N, W / heads].
        value (`Tensor`): [B, heads, N, W / heads].
    """

    key: Tensor
    value: Tensor


def fill_masked(values: Tensor, mask: Tensor) -> Tensor:
    """Put 0 where the mask is False, whatever stood there (NaN too).

    Args:
        values (`Tensor`): [..., C].
        mask (`Tensor`): [...] bool; True = valid.
    """
    return values.masked_fill(~mask[..., None], 0.0)


def open_empty_rows(mask: Tensor) -> Tensor:
    """Return the mask with every row opened that has no valid token: a softmax over nothing is NaN.

    With `fill_masked` beside it such a row reads zeros only, so that what was masked still has no influence.

    Args:
        mask (`Tensor`): [B, N] bool; True = valid.
    """
    return mask | ~mask.any(-1, keepdim=True)


def sinusoidal_embedding(values: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """Sines and cosines of the values at `width / 2` frequencies from 1 to nearly 1 / `longest`.

    Args:
        values (`Tensor`): [...].
        width (`int`): W, even.
        longest (`float`): longest wavelength over 2 pi.

    Returns:
        `Tensor`: [..., W] float32; the sines first.

    Source: Vaswani et al. 2017, section 3.5.
    """
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=values.device) * (-math.log(longest) / half))
    angles = values.float()[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class TransformerLayer(nn.Module):
    """Self-attention, cross-attention if asked for, and a feed-forward layer, each after a LayerNorm.

    Computes what `torch.nn.TransformerEncoderLayer` and `TransformerDecoderLayer` compute with `norm_first=True` and
    GELU, with as many parameters. Differs: the keys and values of the cross-attention are made once by `remember`, so
    that several denoising steps share them, and a row without any valid token gives numbers instead of NaN.

    Shapes: B batch, L tokens, N tokens of the memory, W width.

    Args:
        width (`int`): W.
        heads (`int`): attention heads; W must be a multiple.
        feed_forward (`int`): width of the hidden layer.
        dropout (`float`): on attention weights, hidden layer and before each residual sum.
        cross (`bool`): whether there is a memory to attend to.

    Raises:
        ValueError: W is not a multiple of `heads`.
    """

    def __init__(
        self, width: int, heads: int = 8, feed_forward: int = 4096, dropout: float = 0.0, cross: bool = False
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"TransformerLayer: width {width} is not a multiple of {heads} heads")
        self.heads, self.attention_dropout = heads, dropout
        self.self_norm, self.output_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_input, self.self_output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.cross_norm = nn.LayerNorm(width) if cross else None
        if cross:
            self.cross_query, self.cross_output = nn.Linear(width, width), nn.Linear(width, width)
            self.cross_input = nn.Linear(width, 2 * width)
        self.up, self.down = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        self.dropout = nn.Dropout(dropout)

    def remember(self, memory: Tensor) -> KeyValue:
        """Project the tokens to attend to, [B, N, W]; masked ones must have been filled with 0."""
        key, value = self.cross_input(memory).chunk(2, dim=-1)
        return KeyValue(self._split(key), self._split(value))

    def forward(
        self,
        tokens: Tensor,
        token_mask: Tensor | None = None,
        memory: KeyValue | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """Run the layer.

        Args:
            tokens (`Tensor`): [B, L, W]; finite, also where masked.
            token_mask (`Tensor`, *optional*): [B, L] bool; True = valid. Outputs of masked tokens mean nothing.
            memory (`KeyValue`, *optional*): from `remember`; needed when the layer has a cross-attention.
            memory_mask (`Tensor`, *optional*): [B, N] bool; True = valid.

        Returns:
            `Tensor`: [B, L, W].

        Raises:
            ValueError: a memory for a layer without cross-attention, or the reverse.
        """
        if (memory is None) != (self.cross_norm is None):
            raise ValueError("TransformerLayer: give a memory exactly when the layer was built with cross=True")
        query, key, value = map(self._split, self.self_input(self.self_norm(tokens)).chunk(3, dim=-1))
        tokens = tokens + self.dropout(self.self_output(self._attend(query, KeyValue(key, value), token_mask)))
        if self.cross_norm is not None and memory is not None:
            query = self._split(self.cross_query(self.cross_norm(tokens)))
            tokens = tokens + self.dropout(self.cross_output(self._attend(query, memory, memory_mask)))
        hidden = self.dropout(F.gelu(self.up(self.output_norm(tokens))))
        return tokens + self.dropout(self.down(hidden))

    def _attend(self, query: Tensor, read: KeyValue, mask: Tensor | None) -> Tensor:
        allowed = None if mask is None else open_empty_rows(mask)[:, None, None, :]  # [B, 1, 1, N]
        dropout = self.attention_dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(query, read.key, read.value, attn_mask=allowed, dropout_p=dropout)
        return found.transpose(1, 2).flatten(2)  # [B, L, W]

    def _split(self, hidden: Tensor) -> Tensor:
        return hidden.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, N, W / heads]
