"""Samples of a data set for its contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hfvla.data.inspection.finding import ReadData
from hfvla.data.inspection.rows import row_boxes, row_name, row_pictures, row_texts
from hfvla.data.inspection.seen import SeenRow
from hfvla.data.inspection.sheet import SheetSample, sheet_html
from hfvla.data.inspection.summary import chosen_rows
from hfvla.errors import HfvlaError

__all__ = ["Viewer", "sheet_samples", "write_sheet"]

Viewer = Callable[[Mapping[str, Any]], SeenRow]
"""Shows a row as a model sees it."""

_FACTS = ("source", "split", "kind", "group")


def sheet_samples(rows: Any, count: int, seed: int = 0, viewer: Viewer | None = None) -> list[SheetSample]:
    """Return samples drawn by the seed; what cannot be shown says why.

    Args:
        rows: map-style, of any source.
        count: how many.
        seed: of the choice.
        viewer: how a model sees a row; without it rows are shown as they are stored.
    """
    frames = None
    if "views" in getattr(rows, "column_names", ()):
        from hfvla.data.signals.frame_loader import FrameLoader

        frames = FrameLoader()
    return [_sample(rows[number], number, frames, viewer) for number in chosen_rows(len(rows), count, seed)]


def _sample(row: Mapping[str, Any], number: int, frames: Any, viewer: Viewer | None) -> SheetSample:
    name = row_name(row, number)
    found = SheetSample(name, {key: str(row.get(key) or "") for key in _FACTS}, texts=row_texts(row))
    try:
        found.pictures, found.boxes = row_pictures(row, name, frames), row_boxes(row)
        found.seen = viewer(row) if viewer is not None else None
    except HfvlaError as error:
        found.problem = str(error)
    return found


def write_sheet(found: ReadData, file: Path, count: int, seed: int = 0, viewer: Viewer | None = None) -> int:
    """Write the contact sheet of what was read; return how many samples it has.

    Args:
        found: rows of a path.
        file: HTML file; checked by the caller.
        count: samples.
        seed: of the choice.
        viewer: see `sheet_samples`.

    Raises:
        HfvlaError: the file cannot be written.
    """
    samples = sheet_samples(found.data.dataset, count, seed, viewer)
    note = f"{len(samples)} of {len(found.data.dataset):,} rows, read as {found.source}, seed {seed}."
    try:
        file.write_text(sheet_html(found.path, samples, note), encoding="utf-8")
    except OSError as error:
        raise HfvlaError(f"the contact sheet cannot be written: {error.strerror}", where=str(file)) from error
    return len(samples)
