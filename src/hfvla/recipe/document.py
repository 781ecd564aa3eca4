"""A recipe's YAML as plain data that remembers where each value was written.

Scalars follow YAML 1.2: `1e-4` is a float, `on` and `yes` are text, `12:30` is not a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hfvla.errors import RecipeError

__all__ = ["Document", "Problem", "Steps", "format_steps", "parse_value", "read_document"]

Steps = tuple[str | int, ...]
"""Way from the top of a recipe to a value, e.g. ("stages", 0, "train")."""

_TAG = "tag:yaml.org,2002:"
_ALLOWED_TAGS = {_TAG + kind for kind in ("str", "int", "float", "bool", "null", "map", "seq", "merge")}


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 scalars."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


def _resolve(kind: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(_TAG + kind, re.compile(pattern), list(first) or [""])


_resolve("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolve("null", r"^(?:~|null|Null|NULL)$", "~nN")
_resolve("null", r"^$", "")
_resolve("merge", r"^<<$", "<")
_resolve("int", r"^[-+]?(?:[0-9](?:_?[0-9])*|0x[0-9a-fA-F]+|0o[0-7]+)$", "-+0123456789")
_resolve("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+0123456789.")
_resolve("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+.")


@dataclass(frozen=True)
class Problem:
    """Something wrong at one place of a recipe."""

    steps: Steps
    text: str


@dataclass
class Document:
    """A recipe as written, before it is checked.

    Args:
        data: mappings (text keys), lists and scalars.
        places: where a value was written, by its steps, e.g. "recipe.yaml:12" or "override 'seed=1'".
        lines: line number behind `places`, for sorting; overrides come last.
        problems: what the YAML itself has wrong.
    """

    data: Any
    places: dict[Steps, str] = field(default_factory=dict)
    lines: dict[Steps, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def forget(self, steps: Steps) -> None:
        """Drop what is known of a value and all below it."""
        for known in [known for known in self.places if known[: len(steps)] == steps]:
            del self.places[known], self.lines[known]

    def put(self, steps: Steps, place: str, line: int) -> None:
        """Remember where a value was written."""
        self.places[steps], self.lines[steps] = place, line

    def _nearest(self, steps: Steps) -> Steps:
        while steps and steps not in self.places:
            steps = steps[:-1]
        return steps

    def describe(self, problem: Problem) -> str:
        """Return a problem as one line: place, path, text."""
        place = self.places.get(self._nearest(problem.steps), "recipe")
        path = format_steps(problem.steps)
        return ": ".join(part for part in (place, path, problem.text) if part)

    def raise_problems(self, problems: list[Problem]) -> None:
        """Raise one error with all problems, in the order of the file; nothing if there are none.

        Raises:
            RecipeError: there is a problem.
        """
        if problems:
            ordered = sorted(problems, key=lambda problem: self.lines.get(self._nearest(problem.steps), 0))
            raise RecipeError(list(dict.fromkeys(self.describe(problem) for problem in ordered)))


def format_steps(steps: Steps) -> str:
    """Return ("stages", 0, "train") as "stages[0].train"."""
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def _scalar(node: yaml.ScalarNode) -> Any:
    text, kind = node.value, node.tag.removeprefix(_TAG)
    if kind == "int":
        return int(text, 0) if text.lstrip("+-").lower().startswith(("0x", "0o")) else int(text)
    if kind == "float":
        return float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))
    if kind == "bool":
        return text.lower() == "true"
    return None if kind == "null" else text


class _Reader:
    """Turns composed nodes into a `Document`."""

    def __init__(self, place: str, numbered: bool) -> None:
        self._place, self._numbered = place, numbered
        self._open: list[yaml.Node] = []
        self.document = Document(None)

    def read(self, node: yaml.Node, steps: Steps = ()) -> Any:
        """Return a node's value; record its place and what is wrong with it."""
        line = node.start_mark.line + 1
        if steps not in self.document.places:
            self._mark(steps, line)
        if node in self._open:
            return self._refuse(steps, "an alias (*name) may not contain itself")
        if node.tag not in _ALLOWED_TAGS:
            return self._refuse(steps, f"the tag {node.tag.replace(_TAG, '!!')} is not allowed in a recipe")
        if isinstance(node, yaml.ScalarNode):
            try:
                return _scalar(node)
            except ValueError:
                return self._refuse(steps, f"cannot be read as {node.tag.removeprefix(_TAG)}; got {node.value!r}")
        self._open.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.read(item, (*steps, index)) for index, item in enumerate(node.value)]
            return self._mapping(node, steps)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.Node, steps: Steps) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        first_lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _TAG + "merge":
                merged = {**self._merge(value_node, steps), **merged}
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(steps, f"a key must be a single word (line {line})")
                continue
            key = str(key_node.value)
            if key in own:
                self._refuse((*steps, key), f"given twice (lines {first_lines[key]} and {line}); keep one")
                continue
            self.document.forget((*steps, key))  # what a merge brought in
            self._mark((*steps, key), line)
            first_lines[key] = line
            own[key] = self.read(value_node, (*steps, key))
        return {**merged, **own}

    def _merge(self, node: yaml.Node, steps: Steps) -> dict[str, Any]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        result: dict[str, Any] = {}
        for part in nodes:
            value = self.read(part, steps)
            if isinstance(value, dict):
                result = {**value, **result}
            else:
                self._refuse(steps, "'<<' takes a mapping or a list of mappings")
        return result

    def _mark(self, steps: Steps, line: int) -> None:
        self.document.put(steps, f"{self._place}:{line}" if self._numbered else self._place, line)

    def _refuse(self, steps: Steps, text: str) -> None:
        self.document.problems.append(Problem(steps, text))


def _compose(text: str, place: str, numbered: bool = True) -> yaml.Node | None:
    """Return the root node; a syntax error becomes a `RecipeError` with its line."""
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark, started = error.problem_mark or error.context_mark, error.context_mark
        where = f"{place}:{mark.line + 1}" if mark and numbered else place
        reason = " ".join(part for part in (error.problem, error.context) if part)
        if mark and started and started.line != mark.line:
            reason += f" that starts on line {started.line + 1}"
        raise RecipeError(f"{where}: not valid YAML: {reason}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{place}: not valid YAML: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()


def read_document(path: str | Path) -> Document:
    """Read a recipe file.

    Raises:
        RecipeError: no such file, unreadable, empty, not YAML, or not a mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such recipe. Check the path; recipes end in .yaml") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as a recipe: {error}") from error
    node = _compose(text, str(path))
    if node is None:
        raise RecipeError(f"{path}: the recipe is empty; it needs at least 'family' and 'stages'")
    reader = _Reader(str(path), numbered=True)
    reader.document.data = reader.read(node)
    if not isinstance(reader.document.data, dict):
        reader.document.raise_problems(reader.document.problems)
        raise RecipeError(f"{path}: a recipe is a mapping with the keys 'family' and 'stages'; this file is not")
    return reader.document


def parse_value(text: str, place: str) -> Any:
    """Return the value of one override or option, written as YAML ("1e-4", "[a, b]", "true").

    Raises:
        RecipeError: not valid YAML.
    """
    node = _compose(text, place, numbered=False)
    if node is None:
        return None
    reader = _Reader(place, numbered=False)
    value = reader.read(node)
    reader.document.raise_problems(reader.document.problems)
    return value
