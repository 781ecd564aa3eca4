"""Names that a recipe may put in `train:`: groups of parameters, and fields that hold names.

Part of the family contract (`hfvla.family`), and as free of torch and transformers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hfvla.errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ParameterGroup", "as_names", "parse_group", "take_strings"]

_GROUP_EXPRESSION = re.compile(r"^(?P<name>[A-Za-z_][\w-]*)(?:\.(?P<end>last|first)\((?P<count>[1-9]\d*)\))?$")


def parse_group(expression: str) -> tuple[str, str | None, int]:
    """Split "language.last(2)" into ("language", "last", 2) and "heads" into ("heads", None, 0).

    Raises:
        RecipeError: not of that form.
    """
    match = _GROUP_EXPRESSION.match(expression)
    if match is None:
        raise RecipeError(
            "not a parameter group", got=expression, expected="a name, <name>.last(n) or <name>.first(n) with n >= 1"
        )
    return match["name"], match["end"], int(match["count"] or 0)


def as_names(value: str | Iterable[str]) -> tuple[str, ...]:
    """Return names as a tuple; one string is one name, never its letters."""
    return (value,) if isinstance(value, str) else tuple(value)


def take_strings(instance: Any, *fields: str) -> None:
    """Let the tuple fields of a frozen dataclass also be given as one string or a list."""
    for name in fields:
        object.__setattr__(instance, name, as_names(getattr(instance, name)))


@dataclass(frozen=True)
class ParameterGroup:
    """A name that a recipe may put in `train:`.

    Args:
        patterns: glob patterns over `model.named_parameters()` names; a parameter belongs if any pattern matches. One
            string is one pattern.
        layers: name of a `ModuleList`; when set, a recipe may also write `<group>.last(n)` and `<group>.first(n)`.
            Several names where the module depends on the backbone; the first that a model has is meant.
        description: what it is, for tables and docs.
        whole_model: the group may hold every parameter of the model; otherwise `train:` refuses one that does, as a
            pattern that is too wide would train everything without a word.

    Raises:
        RecipeError: no pattern, or an empty one, which nothing matches.
    """

    patterns: tuple[str, ...]
    layers: str | tuple[str, ...] | None = None
    description: str = ""
    whole_model: bool = False

    def __post_init__(self) -> None:
        """Take one string as one pattern."""
        if not isinstance(self.patterns, str | list | tuple) or not all(isinstance(one, str) for one in self.patterns):
            raise RecipeError("a parameter group has patterns", got=self.patterns, expected='e.g. ("head.*",)')
        take_strings(self, "patterns")
        if not self.patterns or not all(self.patterns):
            raise RecipeError("a parameter group needs patterns", got=self.patterns, expected='e.g. ("head.*",)')

    def layers_of(self, model: PreTrainedModel) -> str | None:
        """Return the name of the `ModuleList` in this model, or None where the group has no layers there."""
        names = as_names(self.layers or ())
        known = {name for name, _ in model.named_modules()}
        return next((name for name in names if name in known), None)
