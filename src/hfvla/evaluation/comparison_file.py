"""The YAML file of `hfvla compare`: which recipes, which seeds, and which scores are set side by side."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from hfvla.errors import RecipeError
from hfvla.recipe.base import RunName, Section
from hfvla.recipe.document import Problem, read_document
from hfvla.recipe.words import plain_problems

__all__ = ["ComparedRecipe", "Comparison", "load_comparison"]


class ComparedRecipe(Section):
    """One of the recipes that are compared."""

    recipe: str = Field(description="YAML file, from the working directory or from this file's folder.")
    overrides: list[str] = Field(default_factory=list, description="Values to change, as on the command line.")


class Comparison(Section):
    """What is compared."""

    runs: dict[RunName, ComparedRecipe] = Field(min_length=2, description="Recipes by a name of your choice.")
    baseline: RunName | None = Field(None, description="Run that the others are subtracted from; default: the last.")
    seeds: list[int] = Field(default_factory=lambda: [0], min_length=1, description="Each recipe is run with each.")
    overrides: list[str] = Field(default_factory=list, description="Values that change in all recipes.")
    output_dir: str = Field("", description="Folder of runs and results; default: outputs/<name of this file>.")
    eval_set: str | None = Field(None, alias="set", description="Evaluation set; default: the only one.")
    metrics: dict[str, str | list[str]] = Field(
        min_length=1,
        description="By shown name, a score of the rows in predictions.jsonl, or several, whose mean it is.",
    )
    budget: Literal["samples", "any"] = Field(
        "samples", description="samples: all runs must see equally many training samples; any: they need not."
    )
    budget_tolerance: float = Field(0.02, ge=0, le=1, description="Share by which samples seen may differ.")
    bootstrap_samples: int = Field(1000, ge=0, description="Resamples behind each interval.")

    @field_validator("seeds")
    @classmethod
    def _different(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value) or min(value, default=0) < 0:
            raise ValueError(f"expected different seeds, each at least 0; got {value}")
        return value

    @model_validator(mode="after")
    def _knows_its_baseline(self) -> Comparison:
        if self.baseline is not None and self.baseline not in self.runs:
            raise ValueError(f"`baseline` is one of the runs {', '.join(self.runs)}; got '{self.baseline}'")
        return self

    @property
    def reference(self) -> str:
        """Name of the run that the others are subtracted from."""
        return self.baseline if self.baseline is not None else list(self.runs)[-1]


def load_comparison(path: str | Path) -> Comparison:
    """Read and check a file; recipes are found beside it where they are not in the working directory.

    Raises:
        RecipeError: with every problem, each with its line.
    """
    path = Path(path)
    if os.path.isdir(path):  # pathlib raises where a name is too long for a path
        raise RecipeError(
            "a folder is no file of recipes", where=str(path),
            fix="Checkpoints: hfvla compare --checkpoint A --checkpoint B --data SOURCE --output DIR.",
        )  # fmt: skip
    document = read_document(path)
    if "stages" in document.data and "runs" not in document.data:
        raise RecipeError(
            "this is a recipe, and recipes are compared by a file that names them", where=str(path),
            fix=f"Write runs: {{one: {{recipe: {path.name}}}, other: {{recipe: ...}}}} and metrics in one.",
        )  # fmt: skip
    try:
        found = Comparison.model_validate(document.data)
    except ValidationError as error:
        document.raise_problems([*document.problems, *plain_problems(error, Comparison)])
        raise
    runs, problems = {}, list(document.problems)
    for name, run in found.runs.items():
        places = [Path(run.recipe), path.parent / run.recipe]
        known = [str(place) for place in places if os.path.isfile(place)]
        if not known:
            problems.append(Problem(("runs", name, "recipe"), f"no such recipe; got '{run.recipe}'"))
        runs[name] = run.model_copy(update={"recipe": known[0] if known else run.recipe})
    document.raise_problems(problems)
    return found.model_copy(update={"runs": runs, "output_dir": found.output_dir or f"outputs/{path.stem}"})
