"""Numbers about rows: counts by split, source and kind, lengths of texts, sizes of pictures, boxes."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hfvla.data.inspection.finding import ReadData
from hfvla.data.inspection.rows import is_chat, row_boxes, row_name, row_texts, sizes_of
from hfvla.data.rows.columns import column
from hfvla.errors import DataError, HfvlaError

__all__ = ["chosen_rows", "describe", "histogram"]

_MOST_NAMES = 20
_BINS = 12


def chosen_rows(count: int, most: int, seed: int = 0) -> list[int]:
    """Return the numbers of rows to look at, in order: all, or `most` of them drawn by the seed."""
    if count <= most:
        return list(range(count))
    return sorted(int(number) for number in np.random.default_rng(seed).choice(count, most, replace=False))


def describe(found: ReadData, most: int = 2000, seed: int = 0, tokens: Callable[[Any], int] | None = None) -> dict:
    """Return what `hfvla data inspect` says of a path.

    Args:
        found: rows and census.
        most: rows that texts and pictures are looked at of; headers of pictures alone are read.
        seed: of the choice.
        tokens: how many tokens a row becomes; words are counted where nothing tells.

    Returns:
        `dict`: "path", "read_as", "also_read_by", "census", "rows", "columns", "splits", "sources", "kinds", "groups",
            "looked_at", "texts" and "pictures" with a histogram each, "boxes".
    """
    rows = found.data.dataset
    looked = chosen_rows(len(rows), most, seed)
    texts: dict[str, list[int]] = {"words": [], "words learned": []}
    pictures = _Pictures()
    boxes: Counter[str] = Counter()
    for number in looked:
        row = rows[number]
        said = row_texts(row)
        texts["words"].append(sum(len(one.text.split()) for one in said))
        if is_chat(row):
            texts["words learned"].append(sum(len(one.text.split()) for one in said if one.learned))
        if tokens is not None:
            with contextlib.suppress(HfvlaError):  # a row that the model cannot take; the sheet says why
                texts.setdefault("tokens", []).append(tokens(row))
        pictures.add(row, row_name(row, number))
        boxes.update(box.label for box in row_boxes(row))
    return {
        "path": found.path,
        "read_as": found.source,
        "also_read_by": found.others,
        "census": found.data.census,
        "rows": len(rows),
        "columns": list(rows.column_names),
        **{f"{name}s": _counts(rows, name) for name in ("split", "source", "kind")},
        "groups": len(set(column(rows, "group"))) if "group" in rows.column_names else None,
        "looked_at": len(looked),
        "texts": {name: histogram(values) for name, values in texts.items() if values},
        "pictures": pictures.summary(),
        "boxes": {"count": boxes.total(), "labels": dict(boxes.most_common(_MOST_NAMES))} if boxes else {},
    }


def _counts(rows: Any, name: str) -> dict[str, int]:
    if name not in rows.column_names:
        return {}
    counts = Counter(str(value or "") for value in rows[name])
    most = counts.most_common(_MOST_NAMES)
    rest = counts.total() - sum(count for _, count in most)
    return {**dict(most), **({f"({len(counts) - len(most)} more)": rest} if rest else {})}


class _Pictures:
    """Sizes of pictures, and what cannot be read."""

    def __init__(self) -> None:
        self.widths: list[int] = []
        self.heights: list[int] = []
        self.broken: list[str] = []
        self.rows_without = 0

    def add(self, row: Mapping[str, Any], name: str) -> None:
        before = len(self.widths)
        try:
            for width, height in sizes_of(row, name):
                self.widths.append(width)
                self.heights.append(height)
        except DataError as error:
            self.broken.append(str(error))
        else:
            self.rows_without += len(self.widths) == before

    def summary(self) -> dict[str, Any]:
        if not self.widths and not self.broken:
            return {}
        shapes = [width / height for width, height in zip(self.widths, self.heights, strict=True)]
        found: dict[str, Any] = {"count": len(self.widths), "rows_without": self.rows_without}
        if self.widths:
            megapixels = [w * h / 1e6 for w, h in zip(self.widths, self.heights, strict=True)]
            found |= {"width": histogram(self.widths), "height": histogram(self.heights)}
            found |= {"width_over_height": histogram(shapes), "megapixels": histogram(megapixels)}
        if self.broken:
            found |= {"broken": len(self.broken), "first_broken": self.broken[0]}
        return found


def histogram(values: Sequence[float], bins: int = _BINS) -> dict[str, Any]:
    """Return count, quantiles and bars of values; bars are narrow where values are small if the range is wide.

    Args:
        values: at least one.
        bins: at most.

    Returns:
        `dict`: "count", "least", "median", "mean", "p95", "largest", and "edges" [bins + 1] with "counts" [bins].
    """
    numbers = np.asarray(values, dtype=np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    wide = low >= 0 and high > 20 * max(float(np.median(numbers)), 1e-9)
    if low == high:
        edges = np.array([low, high])
    elif wide:
        edges = np.unique(np.r_[low, np.geomspace(max(low, high / 4096), high, bins)])
    else:
        whole = bool((numbers == np.round(numbers)).all())
        edges = np.linspace(low, high, min(bins, max(1, math.ceil(high - low))) + 1 if whole else bins + 1)
    counts = [len(numbers)] if low == high else np.histogram(numbers, edges)[0].tolist()
    return {
        "count": len(numbers),
        "least": low,
        "median": float(np.median(numbers)),
        "mean": float(numbers.mean()),
        "p95": float(np.quantile(numbers, 0.95)),
        "largest": high,
        "edges": [float(edge) for edge in edges],
        "counts": counts,
    }
