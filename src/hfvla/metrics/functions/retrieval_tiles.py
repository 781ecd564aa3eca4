"""Scores of some images against some texts, and how many of them reach a threshold, at little more than the product.

A comparison writes one byte a score. Eight neighbouring bytes are one int64, and adding such integers adds eight bytes
at once as long as none passes 255: so 255 scores are added by one vectorised sum, and only the sums are taken apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["CountTile", "full_precision"]

_LANE = 255  # what a byte can count to
_BYTES = 8


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply float32 matrices in float32, whatever the program has set (TF32 has ten bits)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class CountTile:
    """A tile of the score matrix that is used again and again; on a CPU it stays in the second-level cache.

    Args:
        device: where it lies.
        rows: images of a tile, a multiple of 255.
        columns: texts of a tile, a multiple of 2040.
    """

    def __init__(self, device: torch.device, rows: int | None = None, columns: int | None = None) -> None:
        large = device.type != "cpu"
        self.rows, self.columns = rows or _LANE * (16 if large else 2), columns or _LANE * _BYTES * (8 if large else 1)
        self._scores = torch.empty(self.rows, self.columns, device=device)
        self._reached = torch.zeros(self.rows, self.columns, dtype=torch.bool, device=device)
        self._lanes = self._reached.view(torch.int64)  # [rows, columns / 8]
        self._shape = self.rows, self.columns

    def score(self, images: Tensor, texts: Tensor) -> Tensor:
        """Return the scores of at most `rows` images and `columns` texts, [r, c]; they may be changed in place."""
        shape = len(images), len(texts)
        if shape != self._shape:
            self._reached.zero_()  # what lies outside counts nothing
            self._shape = shape
        scores = self._scores[: shape[0], : shape[1]]
        if scores.is_contiguous():
            torch.mm(images, texts.T, out=scores)
        else:
            scores.copy_(images @ texts.T)
        return scores

    def count_by_row(self, least: Tensor) -> Tensor:
        """Count, for each image, the texts that score at least its threshold: [r] int64 of [r]."""
        self._compare(least[:, None])
        sums = self._lanes.view(self.rows, -1, _LANE).sum(2)  # [rows, columns / 2040], eight counts in each
        return sums.view(torch.uint8).sum(1)[: self._shape[0]]

    def count_by_column(self, least: Tensor) -> Tensor:
        """Count, for each text, the images that score at least its threshold: [c] int64 of [c]."""
        self._compare(least[None, :])
        sums = self._lanes.view(self.rows // _LANE, _LANE, -1).sum(1)  # [rows / 255, columns / 8]
        return sums.view(torch.uint8).sum(0)[: self._shape[1]]

    def _compare(self, least: Tensor) -> None:
        rows, columns = self._shape
        torch.ge(self._scores[:rows, :columns], least, out=self._reached[:rows, :columns])
