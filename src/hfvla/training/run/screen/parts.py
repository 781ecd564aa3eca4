"""The parts of a run before it begins: every stage and evaluation with its number of samples."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

from hfvla.errors import HfvlaError
from hfvla.family import FamilySpec, resolve
from hfvla.recipe import EvalSourceRecipe, Recipe, Stage, build_options
from hfvla.training.run.screen.progress import Part
from hfvla.training.stage.data import RecipeData

__all__ = ["run_parts"]

logger = logging.getLogger(__name__)

_EPOCHS, _BATCH = 3.0, 8  # TrainingArguments' own defaults


def run_parts(
    recipe: Recipe, spec: FamilySpec, stages: Sequence[Stage], data: RecipeData, processes: int
) -> list[Part]:
    """Return the parts of a run; an evaluation whose rows cannot be counted yet has size 0.

    Args:
        recipe: the recipe.
        spec: its family.
        stages: those that run.
        data: their rows.
        processes: how many train together.
    """
    parts = [
        Part(
            "stage", stage.name, _samples(recipe.stage_args(stage), data.stage_rows(stage).counts["train"], processes)
        )
        for stage in stages
    ]
    for name, entry in recipe.data.eval.items():
        parts.append(Part("evaluation", name, _rows(spec, entry, f"data.eval.{name}")))
    tested = data.test_rows() if recipe.data.test.fraction else None
    return parts if tested is None else [*parts, Part("evaluation", "test", float(len(tested)))]


def _samples(arguments: dict[str, Any], rows: int | None, processes: int) -> float:
    batch = int(arguments.get("per_device_train_batch_size", _BATCH)) * processes
    batch *= int(arguments.get("gradient_accumulation_steps", 1))
    fixed = int(arguments.get("max_steps", -1))
    steps = fixed if fixed > 0 else math.ceil((rows or 0) / batch) * float(arguments.get("num_train_epochs", _EPOCHS))
    return float(steps * batch)


def _rows(spec: FamilySpec, entry: EvalSourceRecipe, where: str) -> float:
    count = spec.source(entry.source).count
    if count is None:
        return 0.0
    try:
        return float(resolve(count)(build_options(spec, entry.source, entry.options, where=where)))
    except (HfvlaError, OSError) as error:  # the evaluation itself will say it, at its place
        logger.debug("the rows of %s cannot be counted: %s", where, error)
        return 0.0
