"""What pydantic finds wrong, in plain words."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from hfvla.errors import did_you_mean
from hfvla.recipe.document import Problem, Steps
from hfvla.recipe.other_names import KEY_NAMES

__all__ = ["plain_problems", "shown", "validate_strictly"]

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping",
    "path_type": "a path, as text",
    "finite_number": "a finite number",
    "none_required": "nothing",
}
_BOUNDS = {
    "greater_than": (">", "gt"),
    "greater_than_equal": (">=", "ge"),
    "less_than": ("<", "lt"),
    "less_than_equal": ("<=", "le"),
}


_Model = TypeVar("_Model", bound=BaseModel)


def validate_strictly(kind: type[_Model], values: Mapping[str, Any]) -> _Model:
    """Return a model of values that were written: `true` is no number, 1.5 no count, "3" no size; lists may be tuples.

    Values that only Python code can hold (a `Path`, a `tuple`) are taken as pydantic takes them.

    Raises:
        ValidationError: with everything that is wrong.
    """
    try:
        text = json.dumps(dict(values))
    except (TypeError, ValueError):
        return kind.model_validate(dict(values))
    return kind.model_validate_json(text, strict=True)


def plain_problems(error: ValidationError, expected: Any, base: Steps = ()) -> list[Problem]:
    """Translate a `ValidationError`.

    Args:
        error: what pydantic raised.
        expected: the model class or type annotation that was validated; gives the known keys.
        base: where in the recipe the value stands.
    """
    problems: dict[Steps, Problem] = {}
    for details in error.errors(include_url=False):
        location, model = _walk(expected, details["loc"])
        text = _text(details, model, location)
        steps = (*base, *location)
        if details["type"] == "missing":
            problems[(*steps, "missing")] = Problem(steps[:-1], text)
        elif steps in problems:  # another branch of a union
            problems[steps] = Problem(steps, _merge_alternatives(problems[steps].text, text))
        else:
            problems[steps] = Problem(steps, text)
    return [problem for problem in problems.values() if not _is_other_branch(problem, problems)]


def _is_other_branch(problem: Problem, problems: Mapping[Steps, Problem]) -> bool:
    """Tell whether a union's plain branch refused a mapping whose inside another branch has checked."""
    depth = len(problem.steps)
    inside = any(len(steps) > depth and steps[:depth] == problem.steps for steps in problems)
    return inside and problem.text.startswith(("expected a number; got a mapping", "expected a list; got ["))


def _walk(annotation: Any, location: tuple[int | str, ...]) -> tuple[Steps, type[BaseModel] | None]:
    """Return a location without pydantic's own steps (union branches, "[key]"), and the model that holds its end."""
    steps: list[str | int] = []
    holder: type[BaseModel] | None = None
    for step in location:
        annotation = _bare(annotation)
        if step == "[key]":
            continue
        if get_origin(annotation) in _UNIONS:
            annotation = _branch(annotation, step)
            continue
        holder = annotation if _is_model(annotation) else None
        steps.append(step)
        annotation = _inside(annotation, step)
    return tuple(steps), holder


_UNIONS = (Union, types.UnionType)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _bare(annotation: Any) -> Any:
    """Take off Annotated[...] and an only `| None`, which pydantic's locations do not show."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
            continue
        if get_origin(annotation) in _UNIONS:
            branches = [branch for branch in get_args(annotation) if branch is not type(None)]
            if len(branches) == 1:
                annotation = branches[0]
                continue
        return annotation


def _branch(union: Any, label: int | str) -> Any:
    """Return the union's branch that pydantic calls `label`, else its first container or model."""
    branches = [_bare(branch) for branch in get_args(union)]
    named = [branch for branch in branches if getattr(branch, "__name__", None) == label]
    return next(iter(named + [branch for branch in branches if _is_model(branch) or get_args(branch)]), Any)


def _inside(annotation: Any, step: int | str) -> Any:
    """Return the annotation of what stands at a key or index."""
    if _is_model(annotation):
        fields = [f for name, f in annotation.model_fields.items() if step in (name, f.alias)]
        return fields[0].annotation if fields else Any
    arguments = [argument for argument in get_args(annotation) if argument is not Ellipsis]
    return arguments[-1] if arguments else Any


def _merge_alternatives(first: str, second: str) -> str:
    head, expected = first.split("; got", 1)[0], second.split("; got", 1)[0]
    if not expected.startswith("expected ") and "; got a mapping" in first:
        return second  # a mapping was written, and the branch that takes one says what is wrong in it
    if not (head.startswith("expected ") and expected.startswith("expected ")):
        return first
    return first.replace(head, f"{head} or {expected.removeprefix('expected ')}", 1)


def _text(details: Mapping[str, Any], model: type[BaseModel] | None, location: Steps) -> str:
    kind, got, context = details["type"], details["input"], details.get("ctx", {})
    name = location[-1] if location else ""
    if kind == "extra_forbidden":
        meant = KEY_NAMES.get(model.__name__ if model else "", {}).get(str(name))
        hint = f"{meant[0].upper()}{meant[1:]}." if meant else did_you_mean(str(name), _keys(model))
        return f"unknown key '{name}'. {hint}"
    if kind == "missing":
        description = _description(model, str(name))
        return f"the key '{name}' is missing" + (f" ({description})" if description else "")
    if kind == "value_error":
        return f"{context.get('error', details['msg'])}; got {shown(got)}"
    if kind in _BOUNDS:
        sign, bound = _BOUNDS[kind]
        return f"expected a number {sign} {context[bound]:g}; got {shown(got)}"
    if kind in {"model_type", "model_attributes_type", "dataclass_type"}:
        return f"expected a mapping with keys; got {shown(got)}"
    if kind in {"too_short", "too_long"}:
        return f"expected at {'least' if kind == 'too_short' else 'most'} {_count(context)}; got {shown(got)}"
    if kind in {"literal_error", "enum"}:
        return f"expected {context['expected']}; got {shown(got)}"
    if kind in _EXPECTED:
        hint = ". Put it in quotes" if kind == "string_type" and isinstance(got, int | float) else ""
        return f"expected {_EXPECTED[kind]}; got {shown(got)}{hint}"
    message = str(details["msg"]).removeprefix("Input ").removeprefix("Value error, ")
    return f"{message}; got {shown(got)}"


def _count(context: Mapping[str, Any]) -> str:
    count = context.get("min_length", context.get("max_length"))
    return "one item" if count == 1 else f"{count} items"


def shown(value: Any) -> str:
    """Return a value as the user wrote it, shortened."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping) and value:
        return f"a mapping with {', '.join(repr(str(key)) for key in list(value)[:3])}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys(model: type[BaseModel] | None) -> list[str]:
    return [] if model is None else [field.alias or name for name, field in model.model_fields.items()]


def _description(model: type[BaseModel] | None, key: str) -> str:
    for name, field in model.model_fields.items() if model else ():
        if key in (name, field.alias):
            return (field.description or "").rstrip(".")
    return ""
