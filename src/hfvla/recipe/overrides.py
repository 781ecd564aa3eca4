"""`key=value` words of the command line: change a recipe, or name a data source and its options.

How a value is read is said in `hfvla.recipe.document.parse_value`: a path is taken letter by letter, with its `#`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hfvla.errors import RecipeError, did_you_mean
from hfvla.recipe.document import Document, Steps, format_steps, parse_value
from hfvla.recipe.scalars import shortened, strange_letter

__all__ = ["apply_overrides", "parse_data_argument"]

# A key may end in .last(n) or .first(n), e.g. stages.align.learning_rates.language.last(2)=1e-5
_KEY = re.compile(r"[^.\[\]()=\s]+(?:\.(?:last|first)\(\d+\))?")
_INDEX = re.compile(r"\[(\d+)\]")
_DATA = re.compile(r"(?P<source>[A-Za-z_]\w*)(?:=(?P<path>.+)|:(?P<options>.+))?", re.DOTALL)


def apply_overrides(document: Document, overrides: Sequence[str]) -> list[str]:
    """Write overrides into a document, in their order.

    Args:
        document: changed in place; later problems at an overridden value name the override.
        overrides: "key.path=value", the value as `parse_value` reads it; list items by number, `name` or `source`.

    Returns:
        `list[str]`: one line for each override that could not be applied.
    """
    problems = []
    for index, override in enumerate(overrides):
        try:
            _apply(document, override, line=10**9 + index)
        except RecipeError as error:
            problems += error.problems
    return problems


def _apply(document: Document, override: str, line: int) -> None:
    place = f"override {_quoted(override)}"
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"{place}: expected key=value, e.g. seed=1 or stages.<name>.args.learning_rate=1e-4")
    value = parse_value(text, place)
    names = _split(key.strip(), place)
    holder: Any = document.data
    steps: Steps = ()
    for position, name in enumerate(names):
        last = position == len(names) - 1
        step = _step(holder, name, steps, place)
        steps = (*steps, step)
        if last:
            holder[step] = value
        elif isinstance(step, str) and holder.get(step) is None:
            holder[step] = {}
        holder = holder[step]
    document.forget(steps)
    document.put(steps, place, line)


def _quoted(text: str) -> str:
    text = shortened(text, most=200)
    return f"'{text}'" if text.isprintable() else repr(text)


def _split(key: str, place: str) -> list[str]:
    """Split "a.b[0].language.last(2)" into ["a", "b", "0", "language.last(2)"]."""
    names, rest = [], _INDEX.sub(r".\1", key)
    while rest:
        match = _KEY.match(rest)
        after = rest[match.end() :] if match else ""
        if match is None or (after and not after.startswith(".")) or after == ".":
            raise RecipeError(f"{place}: '{key}' is not a path such as stages.<name>.args.learning_rate")
        names.append(match.group())
        rest = after[1:]
    return names


def _step(holder: Any, name: str, steps: Steps, place: str) -> str | int:
    """Return the key or list index that `name` means in `holder`."""
    if isinstance(holder, dict):
        return name
    where = f"{place}: {format_steps(steps)}"
    if not isinstance(holder, list):
        raise RecipeError(f"{where}: is {shortened(repr(holder))} and has no '{name}' inside")
    if name.isdigit():
        if len(name) < 10 and int(name) < len(holder):
            return int(name)
        raise RecipeError(f"{where}: has {len(holder)} items, numbered from 0; got {name}")
    labels = [_labels(item) for item in holder]
    found = [index for index, label in enumerate(labels) if label[:1] == [name]]
    found = found or [index for index, label in enumerate(labels) if name in label]
    if len(found) == 1:
        return found[0]
    if found:
        raise RecipeError(f"{where}: {len(found)} items are called '{name}'; use their number, e.g. {found[0]}")
    known = [label[0] for label in labels if label] or [str(index) for index in range(len(holder))]
    raise RecipeError(f"{where}: no item '{name}'. {did_you_mean(name, known)}")


def _labels(item: Any) -> list[str]:
    if not isinstance(item, dict):
        return []
    return [item[key] for key in ("name", "source") if isinstance(item.get(key), str)]


def parse_data_argument(text: str) -> tuple[str, dict[str, Any]]:
    """Read SOURCE, SOURCE=FILE or SOURCE:key=value,key=value of the command line.

    A value that holds a comma stands in quotes: `records:path="a, b.json",split=test`.

    Returns:
        `tuple[str, dict]`: the source's name and {"source": name, "path": file, **options}, as in `data.eval`.

    Raises:
        RecipeError: not of that form.
    """
    place = f"--data {_quoted(text)}"
    match = _DATA.fullmatch(text)
    if match is None:
        raise RecipeError(f"{place}: expected SOURCE, SOURCE=FILE or SOURCE:key=value,key=value")
    options: dict[str, Any] = {"source": match["source"]}
    if match["path"]:
        options["path"] = _path(match["path"], place)
    for part in _parts(match["options"]) if match["options"] else []:
        key, equals, value = part.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", key.strip()):
            raise RecipeError(f"{place}: {_quoted(part)} is not key=value; a value with a comma stands in quotes")
        if key.strip() in options:
            raise RecipeError(f"{place}: '{key.strip()}' is given twice")
        options[key.strip()] = parse_value(value, place)
    return match["source"], options


def _path(text: str, place: str) -> str:
    if strange_letter(text):
        raise RecipeError(f"{place}: the path holds the character {strange_letter(text)}")
    return text


def _parts(text: str) -> list[str]:
    """Split at the commas outside of quotes and brackets; a quote opens at the beginning of a value only."""
    parts, part, depth, quote = [], "", 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and (part.rstrip()[-1:] in "=[{,:" if depth else part.rstrip().endswith("=")):
            quote = letter
        elif letter in "[{" and (depth or part.rstrip().endswith("=")):
            depth += 1
        elif letter in "]}" and depth:
            depth -= 1
        elif letter == "," and not depth:
            parts.append(part)
            part = ""
            continue
        part += letter
    return [*parts, part]
