"""Recall of image-text retrieval in both directions, without ever holding the score matrix.

Every caption is a query and every image is one; an item of the query's group (its building) is a hit. A query's *rank*
is the number of items of other groups that score at least as high as its best hit, so a tie counts against the model,
and a model that scores everything equal gets nothing. Scores within `tolerance` of the best hit are ties: float32
products of the same pair differ by about 1e-7 with the shape of the matrix they are computed in.

Shapes: I images, T texts, D width, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "CUTOFFS",
    "CountTile",
    "RetrievalRanks",
    "chance_recalls",
    "first_hit_ranks",
    "full_precision",
    "legacy_building_ids",
    "list_ranks",
    "merge_ranks",
    "recalls",
    "retrieval_scores",
    "stream_top_k",
]

CUTOFFS = (1, 5, 10)
"""The k of R@k."""

_Groups = Sequence[str] | Sequence[int] | np.ndarray


@dataclass(frozen=True)
class RetrievalRanks:
    """Rank of the first hit of every query.

    Attributes:
        t2i: [T] int64, rank among images of the best image of each text.
        i2t: [I] int64, rank among texts of the best text of each image.
        text_has_hit: [T] bool; False = no image of its group exists, so it never hits.
        image_has_hit: [I] bool.
    """

    t2i: np.ndarray
    i2t: np.ndarray
    text_has_hit: np.ndarray
    image_has_hit: np.ndarray


def first_hit_ranks(
    images: Tensor,
    texts: Tensor,
    image_groups: _Groups,
    text_groups: _Groups,
    *,
    shard: tuple[int, int] = (0, 1),
    tolerance: float = 1e-6,
    device: torch.device | str | None = None,
) -> RetrievalRanks:
    """Return the rank of every query, both directions from one pass over the scores, in float32.

    Memory beside the features (sorted copies of both) is one tile of scores. With shards, each process counts for its
    share of the images; `merge_ranks` adds them up.

    Args:
        images (`Tensor`): [I, D]; scores are dot products, so normalise them first for cosines.
        texts (`Tensor`): [T, D].
        image_groups: [I] group of each image.
        text_groups: [T] group of each text.
        shard: (number, count) of this process.
        tolerance: how far below the best hit a score still is a tie.
        device: where scores are computed; default: where the images are.

    Raises:
        ValueError: shapes do not fit, there is nothing, or a feature is not finite.
    """
    _check(images, texts, image_groups, text_groups)
    device = torch.device(images.device if device is None else device)
    codes = _codes(image_groups, text_groups)
    orders = [np.argsort(code, kind="stable") for code in codes]
    first, second = (
        features.detach()[torch.from_numpy(order).to(features.device)].to(device, torch.float32)
        for features, order in zip((images, texts), orders, strict=True)
    )
    bounds = _bounds(codes)
    with full_precision():
        best = _best_hits(first, second, bounds)
        above = _count_above(first, second, bounds, [value - tolerance for value in best], shard)
    ranks = []
    for order, count in zip(orders, above, strict=True):
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = count.cpu().numpy()
        ranks.append(rank)
    image_hits, text_hits = np.isin(codes[0], codes[1]), np.isin(codes[1], codes[0])
    return RetrievalRanks(t2i=ranks[1], i2t=ranks[0], text_has_hit=text_hits, image_has_hit=image_hits)


def merge_ranks(shards: Sequence[RetrievalRanks]) -> RetrievalRanks:
    """Return the ranks of all shards together: what each counted is added up."""
    return RetrievalRanks(
        t2i=np.sum([part.t2i for part in shards], axis=0),
        i2t=np.sum([part.i2t for part in shards], axis=0),
        text_has_hit=shards[0].text_has_hit,
        image_has_hit=shards[0].image_has_hit,
    )


def recalls(ranks: RetrievalRanks) -> dict[str, float]:
    """Return t2i_r1, t2i_r5, t2i_r10, i2t_r1, i2t_r5, i2t_r10 and mean_recall, the mean of the six; shares of 1."""
    scores: dict[str, float] = {}
    for name, rank, valid in (
        ("t2i", ranks.t2i, ranks.text_has_hit),
        ("i2t", ranks.i2t, ranks.image_has_hit),
    ):
        scores |= {f"{name}_r{k}": float(((rank < k) & valid).mean()) for k in CUTOFFS}
    return {**scores, "mean_recall": sum(scores.values()) / len(scores)}


def retrieval_scores(
    images: Tensor, texts: Tensor, image_groups: _Groups, text_groups: _Groups, *, tolerance: float = 1e-6
) -> dict[str, float]:
    """Return `recalls` of normalised features; see `first_hit_ranks`."""
    return recalls(first_hit_ranks(images, texts, image_groups, text_groups, tolerance=tolerance))


def chance_recalls(image_groups: _Groups, text_groups: _Groups) -> dict[str, float]:
    """Return the expected `recalls` of a random order, exactly: one minus the chance that the first k hold no hit.

    With m hits among n items the first k hold none with probability `C(n - m, k) / C(n, k)` (hypergeometric).
    """
    codes = _codes(image_groups, text_groups)
    scores: dict[str, float] = {}
    for name, queries, items in (("t2i", codes[1], codes[0]), ("i2t", codes[0], codes[1])):
        total = len(items)
        hits = np.bincount(items, minlength=int(max(code.max() for code in codes)) + 1)[queries]
        for k in CUTOFFS:
            drawn = np.arange(min(k, total))
            missed = np.maximum(total - hits[:, None] - drawn, 0) / (total - drawn)  # [queries, k]
            scores[f"{name}_r{k}"] = float((1 - missed.prod(axis=1)).mean())
    return {**scores, "mean_recall": sum(scores.values()) / len(scores)}


def legacy_building_ids(buildings: Sequence[str]) -> list[int]:
    """Return the building ids that GeoText-1652's own evaluation uses, for the images in the order of the file.

    It counts buildings along the file and raises its counter only after an image has its id, so that the first image
    of each building after the first counts to the building before. A building that comes back later in the file gets
    a new id. A text has the id of its image. For comparison with published numbers only.
    """
    ids, current = [], 0
    for index, building in enumerate(buildings):
        ids.append(current)
        if index and building != buildings[index - 1]:
            current += 1
    return ids


def stream_top_k(
    queries: Tensor, items: Tensor, k: int, *, query_rows: int = 512, item_rows: int = 8192
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield the best k items of each query, some queries at a time, for re-ranking; highest score first.

    Equal scores are in the order of the items; which of them make the last place is not said.

    Args:
        queries (`Tensor`): [Q, D].
        items (`Tensor`): [N, D].
        k (`int`): items a query; all of them where there are fewer.
        query_rows: queries at a time.
        item_rows: items scored at a time.

    Yields:
        number of the first query, scores [q, k] float32, and indices [q, k].
    """
    queries, items = queries.detach().float(), items.detach().float()
    for start in range(0, len(queries), query_rows):
        part = queries[start : start + query_rows]
        scores, indices = part.new_empty(len(part), 0), torch.empty(len(part), 0, dtype=torch.long, device=part.device)
        for first in range(0, len(items), item_rows):
            with full_precision():
                tile = part @ items[first : first + item_rows].T
            values, found = tile.topk(min(k, tile.shape[1]), dim=1)
            scores, indices = torch.cat([scores, values], 1), torch.cat([indices, found + first], 1)
            by_index = indices.argsort(dim=1)
            scores, indices = scores.gather(1, by_index), indices.gather(1, by_index)
            scores, order = scores.sort(dim=1, descending=True, stable=True)
            scores, indices = scores[:, :k], indices.gather(1, order)[:, :k]
        yield start, scores, indices


def list_ranks(indices: np.ndarray, item_groups: _Groups, query_groups: _Groups) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of the first hit in each query's list, e.g. one put in another order by a second model.

    Args:
        indices: [Q, k] items, best first.
        item_groups: [N] group of each item.
        query_groups: [Q] group of each query.

    Returns:
        `tuple`: [Q] int64 places, and [Q] bool whether the list has a hit at all (a query without one never hits).
    """
    items, queries = _codes(item_groups, query_groups)
    hits = items[np.asarray(indices)] == queries[:, None]
    return hits.argmax(axis=1).astype(np.int64), hits.any(axis=1)


def _check(images: Tensor, texts: Tensor, image_groups: _Groups, text_groups: _Groups) -> None:
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1:] != texts.shape[1:] or not len(images) or not len(texts):
        raise ValueError(f"need [I, D] images and [T, D] texts; got {tuple(images.shape)} and {tuple(texts.shape)}")
    if len(images) != len(image_groups) or len(texts) != len(text_groups):
        raise ValueError(
            f"{len(images)} images and {len(texts)} texts have {len(image_groups)} and {len(text_groups)} groups"
        )
    for name, features in (("image", images), ("text", texts)):
        broken = ~torch.isfinite(features).all(1)
        if bool(broken.any()):  # no comparison with NaN is true: such a query would look perfect
            raise ValueError(
                f"{int(broken.sum())} {name} features are not finite; the first is {int(broken.int().argmax())}"
            )


def _codes(first: _Groups, second: _Groups) -> tuple[np.ndarray, np.ndarray]:
    """Return both columns of groups as integers from 0."""
    _, codes = np.unique(np.concatenate([np.asarray(first), np.asarray(second)]), return_inverse=True)
    return codes[: len(first)], codes[len(first) :]


def _bounds(codes: tuple[np.ndarray, np.ndarray]) -> tuple[list[int], list[int]]:
    """Return, for images and texts sorted by group, where each group begins; one more entry for the end."""
    count = int(max(code.max() for code in codes)) + 1
    starts = [np.r_[0, np.bincount(code, minlength=count).cumsum()].tolist() for code in codes]
    return starts[0], starts[1]


def _best_hits(images: Tensor, texts: Tensor, bounds: tuple[list[int], list[int]]) -> list[Tensor]:
    """Return the best score of each image and of each text within its group; -inf where it has no partner."""
    best = [torch.full((len(side),), -torch.inf, device=side.device) for side in (images, texts)]
    for i, i_end, t, t_end in zip(bounds[0], bounds[0][1:], bounds[1], bounds[1][1:], strict=False):
        if i < i_end and t < t_end:
            scores = images[i:i_end] @ texts[t:t_end].T
            best[0][i:i_end], best[1][t:t_end] = scores.amax(1), scores.amax(0)
    return best


def _count_above(
    images: Tensor, texts: Tensor, bounds: tuple[list[int], list[int]], least: list[Tensor], shard: tuple[int, int]
) -> list[Tensor]:
    """Count, for each image and each text, the items of other groups that score at least its threshold."""
    counts = [torch.zeros(len(side), dtype=torch.int64, device=side.device) for side in (images, texts)]
    tile = CountTile(images.device)
    starts = [np.asarray(side) for side in bounds]
    for number, row in enumerate(range(0, len(images), tile.rows)):
        if number % shard[1] != shard[0]:
            continue
        row_end = min(row + tile.rows, len(images))
        groups = range(int(np.searchsorted(starts[0], row, "right")) - 1, int(np.searchsorted(starts[0], row_end)))
        for column in range(0, len(texts), tile.columns):
            column_end = min(column + tile.columns, len(texts))
            scores = tile.score(images[row:row_end], texts[column:column_end])
            if bounds[1][groups[0]] < column_end and bounds[1][groups[-1] + 1] > column:
                for group in groups:  # a hit is not among the items of other groups
                    inside = slice(max(bounds[0][group] - row, 0), max(bounds[0][group + 1] - row, 0))
                    across = slice(max(bounds[1][group] - column, 0), max(bounds[1][group + 1] - column, 0))
                    scores[inside, across] = -torch.inf
            counts[0][row:row_end] += tile.count_by_row(least[0][row:row_end])
            counts[1][column:column_end] += tile.count_by_column(least[1][column:column_end])
    return counts


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
