"""The sets that a run is scored on: those of `data.eval`, and what `data.test` holds out of the training data."""

from __future__ import annotations

from functools import partial

from hfvla.data.processes import Meeting
from hfvla.data.sources.sharing import build_sources
from hfvla.errors import DataError
from hfvla.family import FamilySpec, SourceData
from hfvla.recipe import Recipe
from hfvla.training.stage.data import RecipeData, build_source

__all__ = ["EvalSets"]


class EvalSets:
    """Builds the sets of a recipe, once, when they are first asked for.

    Args:
        recipe: the recipe.
        spec: its family.
    """

    def __init__(self, recipe: Recipe, spec: FamilySpec) -> None:
        self.recipe, self.spec = recipe, spec
        self._sets: dict[str, SourceData] | None = None

    def of(self, data: RecipeData, meeting: Meeting) -> dict[str, SourceData]:
        """Return the sets by name; `test` is the last one.

        Args:
            data: the recipe's training sources, of which a part is held out.
            meeting: of the processes that share the building.

        Raises:
            DataError: a set cannot be built, or nothing could be held out.
        """
        if self._sets is None:
            builders = {
                name: partial(build_source, self.spec, entry, self.recipe, f"data.eval.{name}")
                for name, entry in self.recipe.data.eval.items()
            }
            self._sets = build_sources(builders, meeting, "eval")
            if self.recipe.data.test.fraction:
                self._sets["test"] = _held_out(data)
        return self._sets


def _held_out(data: RecipeData) -> SourceData:
    rows = data.test_rows()
    if rows is None:
        raise DataError("nothing is held out to test on", where="data.test", fix="Streams give no rows; name a table.")
    return SourceData(rows, {"found": len(rows), "usable": len(rows), "rejected": {}})
