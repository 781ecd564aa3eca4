"""What every section of a recipe is made of: strict models, and checked words and numbers."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hfvla.errors import RecipeError, did_you_mean
from hfvla.recipe.document import Problem
from hfvla.recipe.words import plain_problems

__all__ = ["RESERVED_STAGE_NAMES", "LearningRate", "RunName", "Section", "StageName", "Weight", "Word"]

RESERVED_STAGE_NAMES = frozenset({"final", "plots", "logs", "processor", "cache"})
"""Names that a run folder uses itself."""

_FIELDS = "Fields:"
_WORD = re.compile(r"[a-z][a-z0-9_]*")
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _checked_word(value: str) -> str:
    if not _WORD.fullmatch(value):
        raise ValueError("expected lower-case letters, digits and '_', a letter first")
    return value


def _checked_stage_name(value: str) -> str:
    if value in RESERVED_STAGE_NAMES:
        raise ValueError(f"reserved, the run folder uses it; reserved are {', '.join(sorted(RESERVED_STAGE_NAMES))}")
    return _checked_word(value)


def _checked_run_name(value: str) -> str:
    if not _RUN_NAME.fullmatch(value):
        raise ValueError("expected letters, digits, '.', '_' and '-', a letter or digit first")
    return value


Word = Annotated[str, AfterValidator(_checked_word)]
StageName = Annotated[str, AfterValidator(_checked_stage_name)]
RunName = Annotated[str, AfterValidator(_checked_run_name)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
LearningRate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A part of a recipe: unknown keys refused, types strict, values frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    if not TYPE_CHECKING:  # editors and type checkers know the fields

        def __init__(self, /, *wrong: Any, **values: Any) -> None:
            if wrong:
                kind, first = type(self).__name__, next(iter(type(self).model_fields))
                raise RecipeError(f"{kind} takes its fields by name", got=wrong[0], fix=f"Write {kind}({first}=...).")
            try:
                super().__init__(**values)
            except ValidationError as error:
                problems = plain_problems(error, type(self))
                raise RecipeError([_line(type(self).__name__, problem) for problem in problems]) from None

        # pydantic calls an `__init__` of one's own for each part inside another, unless it is marked as its own
        __init__.__pydantic_base_init__ = True

        def __setattr__(self, name: str, value: Any) -> None:
            if not name.startswith("_"):
                kind = type(self).__name__
                known = "" if name in type(self).model_fields else f" {did_you_mean(name, type(self).model_fields)}"
                raise RecipeError(
                    f"a {kind} does not change once it is checked", where=f"{kind}.{name} = ...",
                    fix=f"Build another: {kind}(**{{**dict(old), {name!r}: ...}}).{known}",
                )  # fmt: skip
            super().__setattr__(name, value)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Let `help` say what each field means."""
        super().__pydantic_init_subclass__(**kwargs)
        if cls.__doc__ and cls.model_fields and _FIELDS not in cls.__doc__:
            kinds = {
                name: kind for base in reversed(cls.__mro__) for name, kind in inspect.get_annotations(base).items()
            }
            lines = [_told(name, kinds.get(name, field.annotation), field) for name, field in cls.model_fields.items()]
            cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__), "", _FIELDS, *lines])

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Return the JSON schema, which has the fields' descriptions beside the fields."""
        schema = handler(core_schema)
        found = handler.resolve_ref_schema(schema)
        if "description" in found:
            found["description"] = found["description"].partition(_FIELDS)[0].strip()
        return schema


def _told(name: str, kind: Any, field: Any) -> str:
    if field.is_required():
        return f"    {name} ({kind}): {field.description or ''}"
    default = field.get_default(call_default_factory=True)
    shown = type(default).__name__ + "()" if isinstance(default, BaseModel) else repr(default)
    return f"    {name} ({kind}, default {shown}): {field.description or ''}"


def _line(kind: str, problem: Problem) -> str:
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in problem.steps).lstrip(".")
    return f"{kind}: {place}: {problem.text}" if place else f"{kind}: {problem.text}"
