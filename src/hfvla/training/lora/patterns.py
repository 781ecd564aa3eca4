"""Regular expressions from files and the command line: refused where matching could take for ever."""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

__all__ = ["slow_pattern"]

_REPEATS = {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}
_SINGLE = {"LITERAL", "NOT_LITERAL", "ANY", "IN", "CATEGORY", "RANGE"}
_LONGEST, _MOST_REPEATS, _MANY = 1_000_000, 4, 10


def slow_pattern(pattern: str) -> str | None:
    """Return why a pattern could take for ever on a module's name, or None.

    Repeats of anything but one character at a time, as in `(a+)+` and `(a|a)*`, take exponentially long; several
    unbounded ones in a row, as in `.*.*.*.*.*x`, a high power of the name's length.

    Args:
        pattern: the regular expression.
    """
    if len(pattern) > _LONGEST:
        return f"{len(pattern):,} characters"
    try:
        tree = parser.parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"not a regular expression ({error})"
    if _repeats_of_groups(tree):
        return "a repeated group"
    unbounded = _unbounded(tree)
    return f"{unbounded} unbounded repeats one after the other" if unbounded > _MOST_REPEATS else None


def _parts(tree: Any) -> Iterable[tuple[str, Any]]:
    return [(str(kind), value) for kind, value in tree]


def _inner(kind: str, value: Any) -> list[Any]:
    """Return the patterns inside an element."""
    if kind == "BRANCH":
        return list(value[1])
    if kind == "SUBPATTERN":
        return [value[-1]]
    if kind in _REPEATS:
        return [value[2]]
    if kind in ("ASSERT", "ASSERT_NOT"):
        return [value[1]]
    if kind == "ATOMIC_GROUP":
        return [value]
    return [part for part in value[1:] if part is not None] if kind == "GROUPREF_EXISTS" else []


def _repeats_of_groups(tree: Any) -> bool:
    for kind, value in _parts(tree):
        single = kind not in _REPEATS or _is_single(value[2]) or value[1] < _MANY
        if not single or any(_repeats_of_groups(part) for part in _inner(kind, value)):
            return True
    return False


def _is_single(tree: Any) -> bool:
    parts = list(_parts(tree))
    return len(parts) == 1 and parts[0][0] in _SINGLE


def _unbounded(tree: Any) -> int:
    """Return how many unbounded repeats one path through a pattern has at most."""
    count = 0
    for kind, value in _parts(tree):
        count += kind in _REPEATS and value[1] >= _MANY
        count += max((_unbounded(part) for part in _inner(kind, value)), default=0)
    return count
