"""Numbers that no option of a source or a model can mean, refused before anything is allocated for them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from hfvla.recipe.document import Problem, Steps
from hfvla.recipe.words import shown

__all__ = ["size_problems"]

_MOST, _MOST_FLOAT = 2**32, 1e15


def size_problems(value: Any, steps: Steps) -> Iterator[Problem]:
    """Yield numbers in options, nested ones too, that are not finite or beyond any size.

    Args:
        value: options by name, a list, or one value.
        steps: where it stands.
    """
    if isinstance(value, dict):
        for key, part in value.items():
            yield from size_problems(part, (*steps, key))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from size_problems(part, (*steps, index))
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(steps, f"expected a finite number; got {shown(value)}")
    elif isinstance(value, int | float) and abs(value) > (_MOST if isinstance(value, int) else _MOST_FLOAT):
        yield Problem(steps, f"expected a number of at most {_MOST:,}; got {shown(value)}")
