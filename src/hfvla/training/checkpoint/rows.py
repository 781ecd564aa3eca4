"""The rows that a run began with, remembered by a fingerprint and compared when it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hfvla.errors import RecipeError
from hfvla.sealing import sealed, unsealed
from hfvla.training.checkpoint.record import read_json, write_json
from hfvla.training.stage.fingerprint import changed_rows

__all__ = ["ROWS", "check_run_rows"]

ROWS = "rows.json"
"""In a run folder: the fingerprint of the rows that it began with."""


def check_run_rows(folder: Path, found: Mapping[str, Mapping[str, str]], allowed: bool = False) -> None:
    """Compare the rows of a run with those that it began with, and remember them where it begins.

    Args:
        folder: the run folder.
        found: fingerprint by source.
        allowed: go on with changed rows (`--allow-recipe-change`), and remember these.

    Raises:
        RecipeError: naming the sources and columns that changed.
        CheckpointError: the file of fingerprints is damaged.
    """
    before = read_json(folder / ROWS)
    if before is not None and not allowed:
        before = unsealed(before)
        changed = {name: changed_rows(before.get(name), columns) for name, columns in found.items()}
        changed = {name: columns for name, columns in changed.items() if columns}
        if changed:
            name, columns = next(iter(changed.items()))
            raise RecipeError(
                "the data has changed since this run began",
                where=str(folder),
                got=f"{name}: other values, or another order, in {', '.join(columns)}",
                expected="the rows that its finished stages trained on",
                fix="Put the data back as it was, choose another --output, or pass --allow-recipe-change to train the "
                "stages that are left on the new rows.",
            )
    if before is None or allowed:
        write_json(folder / ROWS, sealed(found))
