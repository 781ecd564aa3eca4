"""What every section of a recipe is made of: strict models, and checked words and numbers."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = ["RESERVED_STAGE_NAMES", "LearningRate", "RunName", "Section", "StageName", "Weight", "Word"]

RESERVED_STAGE_NAMES = frozenset({"final", "plots", "logs", "processor", "cache"})
"""Names that a run folder uses itself."""

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
