"""How a checkpoint's model sees rows: its own processor and the collator of its family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hfvla.data.inspection.seen import SeenRow, see_row
from hfvla.loading import guarded
from hfvla.paths import expand_user
from hfvla.registry import family_of_checkpoint

__all__ = ["viewer_of_checkpoint"]


def viewer_of_checkpoint(
    path: str | Path,
) -> tuple[Callable[[Mapping[str, Any]], SeenRow], Callable[[Any], list[int]] | None]:
    """Return what shows a row as a checkpoint's model sees it while it trains, and what counts tokens of rows.

    No weights are read.

    Args:
        path: checkpoint folder, or a hub id.

    Returns:
        `tuple`: row -> `SeenRow`; rows -> tokens of each, or None where the family's collator does not tell.

    Raises:
        CheckpointError: no checkpoint of a known family, or a processor that cannot be loaded.
    """
    place = expand_user(str(path))
    spec = family_of_checkpoint(place)
    config = guarded(place, lambda: spec.load("config").from_pretrained(place))
    processor = guarded(place, lambda: spec.load("processor").from_pretrained(place))
    collator = spec.load("collator")(processor, config, losses=tuple(spec.losses), training=True)
    return (lambda row: see_row(row, collator, processor)), getattr(collator, "token_lengths", None)
