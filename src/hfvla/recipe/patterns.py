"""Regular expressions that a user writes over module names, with a bound on the time that they may take.

The package `regex` (which transformers needs too) reads them as `re` does and can give up: some patterns, like
`(a+)+b`, take longer than a lifetime on one name of thirty letters.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any

import regex

from hfvla.errors import RecipeError

__all__ = ["compile_pattern", "matching_names"]

_LONGEST = 1_000
_MOST_REPEATS = 10_000  # of {n} in {m}, which are written out when a pattern is compiled
_COUNT = regex.compile(r"(?<=[{,])\d+(?=[,}])")
_SECONDS = 2.0


def compile_pattern(pattern: str) -> Any:
    """Return a compiled pattern.

    Raises:
        RecipeError: longer than any pattern that a person writes, or not a regular expression.
    """
    if len(pattern) > _LONGEST:
        raise RecipeError(f"a pattern has at most {_LONGEST:,} letters; this one has {len(pattern):,}")
    counts = [int(number) for number in _COUNT.findall(pattern) if int(number) > 1]
    if math.prod(counts) > _MOST_REPEATS:
        raise RecipeError(f"the counted repeats of a pattern come to at most {_MOST_REPEATS:,}", got=pattern)
    try:
        return regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError, MemoryError) as error:
        raise RecipeError(f"not a regular expression ({error})", got=pattern) from None


def matching_names(pattern: str, names: Iterable[str], seconds: float = _SECONDS) -> set[str]:
    """Return the names that a pattern matches from end to end.

    Args:
        pattern: a regular expression.
        names: names of modules.
        seconds: for all of them.

    Raises:
        RecipeError: as `compile_pattern`; or the time was not enough.
    """
    compiled, end = compile_pattern(pattern), time.monotonic() + seconds
    try:
        return {name for name in names if compiled.fullmatch(name, timeout=max(end - time.monotonic(), 1e-3))}
    except TimeoutError:
        raise RecipeError(
            f"the pattern tries too many ways to match (more than {seconds:g} s)",
            got=pattern,
            fix="Take out repeats inside repeats, such as (a+)+.",
        ) from None
