"""One field of a request: what it is called, what it holds, and how it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from hfvla.errors import RecipeError, did_you_mean

__all__ = ["RESERVED", "Kind", "RequestField"]

Kind = Literal["text", "integer", "number", "switch", "numbers", "picture", "video", "folder", "output", "data"]
"""Of a field's value. text: not empty. numbers: a list of them. picture, video: a file's path, or what the family
reads in its place (bytes, a PIL image). folder: one that is there. output: a file that is written. data: an object or
a list as JSON has them; the command line also takes a .json or .npz file."""

RESERVED = frozenset(
    ("checkpoint", "request", "data", "csv", "limit", "deadline", "id_column", "overwrite", "retry_failed", "seed")
    + ("device", "json", "help")
)
"""Options of `hfvla predict` itself; no field has their name."""

_SCHEMAS: Mapping[str, dict[str, Any]] = {
    "text": {"type": "string", "minLength": 1},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "switch": {"type": "boolean"},
    "numbers": {"type": "array", "items": {"type": "number"}},
    "picture": {"type": "string", "format": "path", "contentMediaType": "image/*"},
    "video": {"type": "string", "format": "path", "contentMediaType": "video/*"},
    "folder": {"type": "string", "format": "path"},
    "output": {"type": "string", "format": "path"},
    "data": {"type": ["object", "array"]},
}


@dataclass(frozen=True)
class RequestField:
    """One field of a request.

    Args:
        name: its key; the option is `--name`, with hyphens.
        help: one line.
        kind: of its value; see `Kind`.
        required: a request without it is refused.
        repeated: a list of values; on the command line the option is given several times.
        named: values by name; on the command line `--option NAME=VALUE`, several times.
        default: taken where the field is not given.
        choices: the only texts that are allowed.
        least: smallest value of a number.
        count: least and most items of a repeated or named field; None for no limit.
        separator: a text with several values, e.g. "|"; for repeated fields.
        option: another name of the option, e.g. "view" of a field "views".
        suffixes: endings that a file may have, e.g. (".png",).
        whole_file: may also be given where a whole data source is answered (`AnswerFile.given`).
    """

    name: str
    help: str
    kind: Kind = "text"
    required: bool = False
    repeated: bool = False
    named: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    count: tuple[int, int | None] = (1, None)
    separator: str | None = None
    option: str = ""
    suffixes: tuple[str, ...] = ()
    whole_file: bool = False

    def __post_init__(self) -> None:
        """Refuse a description that no option can be made of."""
        problem = None
        if not self.name.isidentifier() or {self.name, self.option.replace("-", "_")} & RESERVED:
            problem = "its name is no word, or one of hfvla predict's own options"
        elif self.kind not in get_args(Kind):
            problem = f"no kind '{self.kind}'. {did_you_mean(self.kind, get_args(Kind))}"
        elif self.repeated and self.named or self.kind == "switch" and (self.repeated or self.named):
            problem = "repeated, named and switch exclude each other"
        if problem:
            raise RecipeError(f"a request's field '{self.name}' cannot be described: {problem}")

    @property
    def flag(self) -> str:
        """Return the option's words, e.g. "--top-k"."""
        return "--" + (self.option or self.name).replace("_", "-")

    @property
    def is_file(self) -> bool:
        """Tell whether a value names a file or folder of this machine."""
        return self.kind in ("picture", "video", "folder", "output")

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the field's value."""
        one = dict(_SCHEMAS[self.kind])
        if self.choices:
            one["enum"] = list(self.choices)
        if self.least is not None:
            one["minimum"] = self.least
        least, most = self.count
        if self.repeated:
            one = {"type": "array", "items": one, "minItems": least}
        elif self.named:
            one = {"type": "object", "additionalProperties": one, "minProperties": least}
        if (self.repeated or self.named) and most is not None:
            one["maxItems" if self.repeated else "maxProperties"] = most
        one["description"] = self.help
        return one if self.default is None else {**one, "default": self.default}
