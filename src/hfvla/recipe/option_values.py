"""Values of the options that a family's evaluation takes, from a recipe or from the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hfvla.errors import did_you_mean
from hfvla.family import FamilySpec, Option
from hfvla.recipe.document import Problem, Steps
from hfvla.recipe.words import shown

__all__ = ["evaluation_option_problems"]

_MOST = 2**31 - 1


def evaluation_option_problems(options: Mapping[str, Any], spec: FamilySpec, base: Steps) -> Iterator[Problem]:
    """Yield what is wrong about options of a family's evaluation: names that it does not have, values of no use.

    Args:
        options: value by name, as written; None stands for the default.
        spec: the family.
        base: where they stand.
    """
    for name, value in options.items():
        steps, known = (*base, name), spec.evaluation_options.get(name)
        if known is None:
            hint = did_you_mean(str(name), spec.evaluation_options)
            yield Problem(steps, f"the evaluation of '{spec.name}' has no option '{name}'. {hint}")
        elif isinstance(known, Option) and value is not None:
            yield from _value_problems(known, value, steps)


def _value_problems(known: Option, value: Any, steps: Steps) -> Iterator[Problem]:
    if known.kind is bool:
        if not isinstance(value, bool):
            yield Problem(steps, f"expected true or false; got {shown(value)}")
    elif not isinstance(value, int) or isinstance(value, bool):
        yield Problem(steps, f"expected a whole number; got {shown(value)}")
    elif not known.least <= value <= _MOST:
        yield Problem(steps, f"expected a whole number >= {known.least} and <= {_MOST:,}; got {shown(value)}")
