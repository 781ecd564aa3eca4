"""What a family can be asked: the fields of one request, from which options, forms and schemas are made.

Free of torch: `hfvla predict --checkpoint DIR --help` reads it before any weight is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hfvla.errors import DataError, RecipeError, did_you_mean
from hfvla.family.request_fields import RequestField
from hfvla.family.request_values import check_value, parse_text

__all__ = ["Request"]


@dataclass(frozen=True)
class Request:
    """What a family's `predict` is asked: the fields of one request.

    Args:
        fields: in the order in which they are shown.
        one_of: sets of fields of which exactly one is given, e.g. (("images", "gallery"),).
        description: one line.
        path: last part of the address under which a server answers it, e.g. "select" for "/select".
        example: values of some fields, as they may be given; for help pages.
    """

    fields: tuple[RequestField, ...]
    one_of: tuple[tuple[str, ...], ...] = ()
    description: str = ""
    path: str = "predict"
    example: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse names that stand twice, and sets of fields that are not there."""
        names = [word for field in self.fields for word in {field.name, field.option or field.name}]
        twice = sorted({name for name in names if names.count(name) > 1})
        unknown = sorted({name for names in self.one_of for name in names} - set(self.names))
        if twice or unknown:
            raise RecipeError("a request cannot be described", got=twice or unknown, expected="different, known names")

    @property
    def names(self) -> tuple[str, ...]:
        """Return the fields' names."""
        return tuple(field.name for field in self.fields)

    def field(self, name: str) -> RequestField:
        """Return a field by name.

        Raises:
            DataError: there is none; the message suggests the nearest.
        """
        for field in self.fields:
            if field.name == name:
                return field
        raise DataError(f"the request has no field '{name}'. {did_you_mean(name, self.names)}")

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of a request."""
        required = [field.name for field in self.fields if field.required]
        found: dict[str, Any] = {
            "type": "object",
            "properties": {field.name: field.schema() for field in self.fields},
            "required": required,
            "additionalProperties": False,
        }
        if self.description:
            found["description"] = self.description
        if self.one_of:
            found["allOf"] = [{"oneOf": [{"required": [name]} for name in names]} for names in self.one_of]
        return found

    def parse(self, texts: Mapping[str, Iterable[str]]) -> dict[str, Any]:
        """Return values from texts, as the command line and forms have them; `check` looks at them then.

        Args:
            texts: by field name its text, or several of a repeated or named field.

        Raises:
            DataError: an unknown field, or a text that is no such value.
        """
        return {name: parse_text(self.field(name), list(given)) for name, given in texts.items()}

    def check(self, given: Mapping[str, Any], *, as_options: bool = False, partial: bool = False) -> dict[str, Any]:
        """Return a request with its defaults, all of it looked at; None stands for a field that is not given.

        Args:
            given: values by field name.
            as_options: errors speak of options (`--top-k`), not of fields (`top_k`).
            partial: fields may be missing, and defaults are left out.

        Raises:
            DataError: an unknown field, one that is missing, or a value that is not as described.
        """
        if not isinstance(given, Mapping):
            raise DataError("a request is an object", got=type(given).__name__, expected="values by field")
        found = {}
        for name, value in given.items():
            field = self.field(name)
            if value is not None:
                found[name] = check_value(field, value, field.flag if as_options else name)
        if partial:
            return found
        shown = {field.name: field.flag if as_options else f"'{field.name}'" for field in self.fields}
        for field in self.fields:
            if field.required and field.name not in found:
                raise DataError(
                    f"the request lacks {shown[field.name]}", got=[shown[name] for name in found] or None,
                    expected=f"{shown[field.name]}: {field.help}",
                )  # fmt: skip
        for names in self.one_of:
            together = [shown[name] for name in names if name in found]
            if len(together) != 1:
                raise DataError(
                    f"a request has one of {', '.join(shown[name] for name in names)}",
                    got=", ".join(together) or "none of them",
                )
        return {field.name: field.default for field in self.fields if field.default is not None} | found
