"""Single words of a recipe: which type a plain one has, and its value."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

__all__ = ["TAG", "Resolver", "printable", "read_scalar", "shortened", "strange_letter"]

TAG = "tag:yaml.org,2002:"
"""What YAML's own tags begin with."""

_MOST_DIGITS, _MOST = 40, 2**63  # of whole numbers, which JSON, numpy and torch must hold too
_STRANGE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_BOOL = r"^(?:true|True|TRUE|false|False|FALSE)$"
_NULL = r"^(?:~|null|Null|NULL)?$"


class Resolver(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 scalars."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


def _resolve(kind: str, pattern: str, first: str) -> None:
    Resolver.add_implicit_resolver(TAG + kind, re.compile(pattern), list(first) or [""])


_resolve("bool", _BOOL, "tTfF")
_resolve("null", r"^(?:~|null|Null|NULL)$", "~nN")
_resolve("null", r"^$", "")
_resolve("merge", r"^<<$", "<")
_resolve("int", r"^[-+]?(?:[0-9](?:_?[0-9])*|0x[0-9a-fA-F]+|0o[0-7]+)$", "-+0123456789")
_resolve("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+0123456789.")
_resolve("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+.")


def read_scalar(text: str, tag: str) -> Any:
    """Return the value of a scalar.

    Args:
        text: as written, without quotes.
        tag: given or resolved, with `TAG`.

    Raises:
        ValueError: it does not read as its tag says, or holds what no text of a recipe may; the message says which.
    """
    kind = tag.removeprefix(TAG)
    if kind == "int":
        return _whole_number(text)
    if kind == "float":
        return _number(text)
    if kind in ("bool", "null"):
        if not re.match(_BOOL if kind == "bool" else _NULL, text):
            raise ValueError(f"cannot be read as {kind}; got {shortened(text)!r}")
        return text.lower() == "true" if kind == "bool" else None
    if strange_letter(text):
        raise ValueError(f"holds the character {strange_letter(text)}, which no text of a recipe may")
    return text


def _whole_number(text: str) -> int:
    try:
        if len(text) > _MOST_DIGITS:
            raise OverflowError
        value = int(text, 0) if text.lstrip("+-").lower().startswith(("0x", "0o")) else int(text)
        if abs(value) >= _MOST:
            raise OverflowError
    except OverflowError:
        raise ValueError(f"beyond what a number can hold; got {shortened(text)!r}") from None
    except ValueError:
        raise ValueError(f"cannot be read as int; got {shortened(text)!r}") from None
    return value


def _number(text: str) -> float:
    try:
        value = float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))
    except ValueError:
        raise ValueError(f"cannot be read as float; got {shortened(text)!r}") from None
    if (math.isinf(value) and "inf" not in text.lower()) or (value == 0 and re.search(r"^[^eE]*[1-9]", text)):
        raise ValueError(f"beyond what a number can hold; got {shortened(text)!r}")
    return value


def strange_letter(text: str) -> str:
    """Return the first control character or half of a surrogate pair in a text as "U+0007"; "" where there is none."""
    found = _STRANGE.search(text)
    return f"U+{ord(found.group()):04X}" if found else ""


def printable(text: str) -> str:
    """Return a text with what is no visible letter written out: a right-to-left mark would turn a message around."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def shortened(text: str, most: int = 60) -> str:
    """Return a text with its middle left out where it is longer than `most` letters."""
    return text if len(text) <= most else f"{text[: most - 20]}...{text[-17:]}"
