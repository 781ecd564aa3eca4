"""Embedding of a bag of hashed n-grams."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hfvla.nn.noise import RowGenerator, draw_uniform

__all__ = ["NgramEmbedding"]


class NgramEmbedding(nn.Module):
    """Sums the vectors of a text's n-grams (`hfvla.data.ngrams`), divided by the root of their number.

    Args:
        buckets: number of ids; id 0 is padding.
        width: D.
        dropout: share of the n-grams left out while training.
        apart: words and word pairs, with ids above `buckets`, are summed apart: its ten parts drown a word in
            one sum.
    """

    def __init__(self, buckets: int, width: int, dropout: float = 0.0, apart: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(buckets * (1 + apart) + 1, width, padding_idx=0)
        self.buckets, self.dropout, self.apart = buckets, dropout, apart

    def forward(self, ids: Tensor, generator: RowGenerator | None = None) -> Tensor:
        """Map ids [B, K] (0 = padding) to [B, D], with `apart` to [B, 2, D]: parts, then words.

        A text without n-grams is a zero vector.

        The generator is of the dropout; torch's own stream when not given.
        """
        if self.training and self.dropout:
            ids = ids.masked_fill(draw_uniform(tuple(ids.shape), ids, generator, "ngrams") < self.dropout, 0)
        if not self.apart:
            return self._sum(ids)
        words = ids > self.buckets
        return torch.stack([self._sum(ids.masked_fill(other, 0)) for other in (words, ~words)], 1)

    def _sum(self, ids: Tensor) -> Tensor:
        count = (ids != 0).sum(1, keepdim=True).clamp_min(1)
        return self.embedding(ids).sum(1) / count.to(self.embedding.weight.dtype).sqrt()
