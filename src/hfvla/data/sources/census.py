"""Counting of unusable records: by reason, the first of each named, too many refused."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hfvla.errors import DataError

__all__ = ["Census", "Rejection", "UnusableError"]

logger = logging.getLogger(__name__)


class UnusableError(Exception):
    """A record cannot be used.

    Args:
        reason: what the census counts it under.
        detail: the offending value.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


@dataclass(frozen=True)
class Rejection:
    """A record that cannot be used.

    Attributes:
        where: its place, "file:index".
        id: its own id, "" when it has none.
        reason: what it is counted under.
        detail: the offending value.
    """

    where: str
    id: str
    reason: str
    detail: str


MOST_NAMED = 100_000
"""Rejections that a census keeps one by one; those beyond are counted, so that millions of them fit into memory."""


@dataclass
class Census:
    """What became of the records of a file.

    Attributes:
        found: number of records.
        rejections: the unusable ones, in the file's order; the first `MOST_NAMED`.
        bad: number of unusable ones.
    """

    found: int = 0
    rejections: list[Rejection] = field(default_factory=list)
    bad: int = 0
    _reasons: dict[str, dict[str, Any]] = field(default_factory=dict)

    def reject(self, where: str, record_id: str, problem: UnusableError) -> None:
        """Count a record as unusable."""
        texts = (where, record_id, problem.reason, problem.detail)
        # Names on disk and in broken files may hold half characters, which no log and no report can write.
        one = Rejection(*(text.encode(errors="backslashreplace").decode() for text in texts))
        name = f"{one.where} ({one.id})" if one.id else one.where
        first = f"{name}: {one.detail}" if one.detail else name
        self._reasons.setdefault(one.reason, {"count": 0, "first": first})["count"] += 1
        self.bad += 1
        if len(self.rejections) < MOST_NAMED:
            self.rejections.append(one)

    @property
    def usable(self) -> int:
        """Number of records that can be used."""
        return self.found - self.bad

    def rejected(self) -> dict[str, dict[str, Any]]:
        """Return {reason: {"count", "first"}}, the first offender with its place, id and value."""
        return {reason: dict(entry) for reason, entry in self._reasons.items()}

    def refuse_if_too_bad(self, limit: float, path: str) -> None:
        """Raise when more than the share `limit` of the records is unusable.

        Raises:
            DataError: with the counts by reason and the first offender.
        """
        if self.bad <= limit * self.found:
            return
        reasons = self.rejected()
        counts = ", ".join(f"{entry['count']} {reason}" for reason, entry in reasons.items())
        raise DataError(
            f"{self.bad} of {self.found} records are unusable ({counts}); "
            f"first: {next(iter(reasons.values()))['first']}",
            where=path,
            expected=f"at most {limit:.1%}",
            fix="Correct the records, or raise max_bad_fraction.",
        )

    def log(self, path: str, more: Iterable[tuple[str, int]] = ()) -> None:
        """Log one table: a warning when a record was rejected.

        Args:
            path: of the file.
            more: further (name, count) lines.
        """
        reasons = self.rejected()
        rows = [("records found", self.found, ""), ("records usable", self.usable, "")]
        rows += [(f"rejected: {reason}", entry["count"], entry["first"]) for reason, entry in reasons.items()]
        rows += [(name, count, "") for name, count in more]
        width = max(len(row[0]) for row in rows)
        table = "\n".join(f"  {name:<{width}}  {count:>6}  {first}".rstrip() for name, count, first in rows)
        logger.log(logging.WARNING if reasons else logging.INFO, "census of %s\n%s", path, table)
