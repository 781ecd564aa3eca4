"""A recipe's YAML as plain data that remembers where each value was written.

Scalars follow YAML 1.2: `1e-4` is a float, `on` and `yes` are text, `12:30` is not a number. What a file may cost is
limited before it is read: its size, its nesting, and the values it comes to when its aliases are filled in.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hfvla.errors import RecipeError
from hfvla.recipe.scalars import TAG, Resolver, printable, read_scalar, shortened, strange_letter

__all__ = ["Document", "Problem", "Steps", "as_list", "as_mapping", "format_steps", "parse_value", "read_document"]

Steps = tuple[str | int, ...]
"""Way from the top of a recipe to a value, e.g. ("stages", 0, "train")."""

_ALLOWED_TAGS = {TAG + kind for kind in ("str", "int", "float", "bool", "null", "map", "seq", "merge")}

_MOST_BYTES = 1 << 19
_MOST_VALUES = 20_000  # aliases filled in; the largest shipped recipe has 200
_DEEPEST = 64
_MOST_PROBLEMS = 100  # shown; a file that is all wrong is not read to its end by anybody


class _Loader(Resolver):
    """A loader that refuses nesting on which Python's stack would end."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node and what it holds."""
        self._depth += 1
        if self._depth > _DEEPEST:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem=f"nested more than {_DEEPEST} deep", problem_mark=mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


@dataclass(frozen=True)
class Problem:
    """Something wrong at one place of a recipe."""

    steps: Steps
    text: str


def as_mapping(value: Any) -> dict[str, Any]:
    """Return a value of a recipe that should be a mapping, {} where it is none: what is wrong is said elsewhere."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return a value of a recipe that should be a list, [] where it is none."""
    return value if isinstance(value, list) else []


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
        if steps not in self.places:
            return
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
        return ": ".join(part for part in (place, path, printable(shortened(problem.text, most=600))) if part)

    def raise_problems(self, problems: list[Problem]) -> None:
        """Raise one error with all problems, in the order of the file; nothing if there are none.

        Raises:
            RecipeError: there is a problem.
        """
        if problems:
            ordered = sorted(problems, key=lambda problem: self.lines.get(self._nearest(problem.steps), 0))
            lines = list(dict.fromkeys(self.describe(problem) for problem in ordered))
            more = [f"and {len(lines) - _MOST_PROBLEMS} more"] if len(lines) > _MOST_PROBLEMS else []
            raise RecipeError([*lines[:_MOST_PROBLEMS], *more])


def format_steps(steps: Steps) -> str:
    """Return ("stages", 0, "train") as "stages[0].train"."""
    text = ""
    for step in steps:
        name = str(step) if str(step).isprintable() else repr(step)
        text += f"[{step}]" if isinstance(step, int) else f".{name}" if text else name
    return shortened(text, most=200)


class _Reader:
    """Turns composed nodes into a `Document`."""

    def __init__(self, place: str, numbered: bool) -> None:
        self._place, self._numbered = place, numbered
        self._open: list[yaml.Node] = []
        self._count = 0
        self.document = Document(None)

    def read(self, node: yaml.Node, steps: Steps = ()) -> Any:
        """Return a node's value; record its place and what is wrong with it."""
        line = node.start_mark.line + 1
        self._count += 1
        if self._count > _MOST_VALUES:
            raise RecipeError(f"{self._place}: the aliases of this recipe come to more than {_MOST_VALUES} values")
        if steps not in self.document.places:
            self._mark(steps, line)
        if node in self._open:
            return self._refuse(steps, "an alias (*name) may not contain itself")
        if node.tag not in _ALLOWED_TAGS:
            return self._refuse(steps, f"the tag {shortened(node.tag.replace(TAG, '!!'))} is not allowed in a recipe")
        if isinstance(node, yaml.ScalarNode):
            try:
                return read_scalar(node.value, node.tag)
            except ValueError as error:
                return self._refuse(steps, str(error))
        if node.tag != TAG + ("seq" if isinstance(node, yaml.SequenceNode) else "map"):
            return self._refuse(steps, f"the tag {node.tag.replace(TAG, '!!')} does not fit what it stands before")
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
            if key_node.tag == TAG + "merge":
                merged = {**self._merge(value_node, steps), **merged}
                continue
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in _ALLOWED_TAGS:
                self._refuse(steps, f"a key must be a single word (line {line})")
                continue
            key = str(key_node.value)
            if strange_letter(key):
                self._refuse(steps, f"a key holds the character {strange_letter(key)} (line {line})")
                continue
            if key in own:
                self._refuse((*steps, key), f"given twice (lines {first_lines[key]} and {line}); keep one")
                continue
            if key in merged:
                self.document.forget((*steps, key))
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
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark, started = error.problem_mark or error.context_mark, error.context_mark
        where = f"{place}:{mark.line + 1}" if mark and numbered else place
        reason = shortened(" ".join(part for part in (error.problem, error.context) if part), most=300)
        if mark and started and started.line != mark.line:
            reason += f" that starts on line {started.line + 1}"
        raise RecipeError(f"{where}: not valid YAML: {reason}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{place}: not valid YAML: {shortened(' '.join(str(error).split()), most=300)}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _beside(path: str | Path) -> str:
    """Return the nearest recipe in the folder of a file that is none, or how to find one."""
    try:
        names = sorted(one.name for one in Path(path).parent.glob("*.yaml"))
    except OSError:
        names = []
    nearest = difflib.get_close_matches(Path(path).name, names, n=1)
    if nearest:
        return f"Did you mean '{Path(path).parent / nearest[0]}'?"
    return "Check the path; recipes end in .yaml, and `hfvla recipes` lists those that are shipped."


def read_document(path: str | Path) -> Document:
    """Read a recipe file.

    Raises:
        RecipeError: no such file, unreadable, empty, not YAML, or not a mapping.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
        text = content.decode("utf-8")
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such recipe. {_beside(path)}") from error
    except IsADirectoryError as error:
        raise RecipeError(f"{path}: a folder is no recipe. {_beside(Path(path) / 'recipe.yaml')}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: cannot be read as a recipe: not UTF-8: {error}") from error
    except (OSError, ValueError) as error:
        raise RecipeError(f"{shortened(str(path), most=200)}: cannot be read as a recipe: {error}") from error
    if len(content) > _MOST_BYTES:
        raise RecipeError(f"{path}: a recipe has at most {_MOST_BYTES:,} bytes; this file has more")
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
    """Return the value of one override or option of the command line.

    A text that begins with `[`, `{`, a quote or `!` is YAML, to its last letter. Any other is one scalar: a number,
    true, false or null where all of it reads so, else the text itself, with its `#`, `: ` and spaces.

    Args:
        text: what stands behind the first "=".
        place: what to name in errors.

    Raises:
        RecipeError: begins like YAML and is not, or a number that does not fit.
    """
    if not text.lstrip().startswith(("[", "{", '"', "'", "!")):
        return _plain_value(text, place)
    node = _compose(text, place, numbered=False)
    if node is None:
        return None
    if text[node.end_mark.index :].strip():
        rest = shortened(text[node.end_mark.index :].strip())
        raise RecipeError(f"{place}: not valid YAML: {rest!r} follows the value; put a text as a whole into quotes")
    reader = _Reader(place, numbered=False)
    value = reader.read(node)
    reader.document.raise_problems(reader.document.problems)
    return value


def _plain_value(text: str, place: str) -> Any:
    word = text.strip()
    tag = _Loader("").resolve(yaml.ScalarNode, word, (True, False))
    try:
        return read_scalar(text, TAG + "str") if tag in (TAG + "str", TAG + "merge") else read_scalar(word, tag)
    except ValueError as error:
        raise RecipeError(f"{place}: {error}") from error
