"""Names of groups as integers that mean the same on every process and in every batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["NO_GROUP", "SOURCE_IDS", "group_ids", "source_ids"]

NO_GROUP = -1
"""Id of a row without a group: it belongs together with no other row."""


SOURCE_IDS = "source_ids"
"""Batch key: [S] id of the source of each sample, for losses by source; in a packed batch samples, not sequences."""


def group_ids(names: Iterable[str]) -> list[int]:
    """Return an integer in [0, 2^63) for each name, a hash of it; `NO_GROUP` for the empty name.

    Two names share an id with a chance of about n^2 / 2^64 among n names, 5e-14 for a thousand.
    """
    return [_id(name) if name else NO_GROUP for name in names]


def _id(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1


def source_ids(rows: Iterable[Mapping[str, Any]]) -> list[int]:
    """Return the id of each row's `source`, for a collator to put under `SOURCE_IDS`."""
    return group_ids(str(row.get("source") or "") for row in rows)
