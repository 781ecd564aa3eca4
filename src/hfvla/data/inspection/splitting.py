"""The sets of a path for the checks: its official splits apart, where it has them."""

from __future__ import annotations

from collections import defaultdict

from hfvla.data.inspection.checks import CheckedRows, read_set
from hfvla.data.inspection.finding import ReadData
from hfvla.data.inspection.summary import chosen_rows
from hfvla.data.rows.columns import column

__all__ = ["checked_sets"]


def checked_sets(found: ReadData, most: int, seed: int = 0, whole: bool = False) -> list[CheckedRows]:
    """Return a set for each official split of a path, or one for all of it.

    Args:
        found: rows of a path.
        most: rows that are looked at, of all splits together.
        seed: of the choice.
        whole: an evaluation set is one set, whatever its splits.
    """
    rows = found.data.dataset
    chosen = chosen_rows(len(rows), most, seed)
    if whole or "split" not in rows.column_names:
        return [read_set(found.path, rows, chosen)]
    splits = column(rows, "split") if len(chosen) == len(rows) else [rows[number]["split"] for number in chosen]
    members: dict[str, list[int]] = defaultdict(list)
    for number, split in zip(chosen, splits, strict=True):
        members[str(split or "")].append(number)
    if len(members) == 1:
        return [read_set(found.path, rows, chosen)]
    return [read_set(f"{found.path} [{split or 'no split'}]", rows, own) for split, own in sorted(members.items())]
