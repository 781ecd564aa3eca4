"""Where a stage of a run takes place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hfvla.family import FamilySpec
from hfvla.recipe import Recipe, Stage

__all__ = ["StageContext"]


class StageContext:
    """A stage, on this process.

    Args:
        recipe: the recipe.
        spec: its family.
        stage: the stage.
        folder: `<out>/<stage>`.
        state: accelerate's `PartialState`.
    """

    def __init__(self, recipe: Recipe, spec: FamilySpec, stage: Stage, folder: Path, state: Any) -> None:
        self.recipe, self.spec, self.stage = recipe, spec, stage
        self.folder, self.state = folder, state
