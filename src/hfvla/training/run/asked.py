"""What a script passes to `run_recipe`, looked at before anything is built: one error for each wrong use."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hfvla.errors import RecipeError
from hfvla.recipe import Recipe, load_recipe

__all__ = ["asked_recipe"]


def asked_recipe(recipe: Any, overrides: Sequence[str] | str | Path | None, words: dict[str, Any]) -> Recipe:
    """Return a recipe from its file, or as it is.

    Args:
        recipe: a file, or a `Recipe`.
        overrides: "key=value" each; in 0.1 the run folder stood here.
        words: the other arguments by name, each a name or a path; a folder in place of overrides goes to
            "output_dir".

    Raises:
        RecipeError: what is passed is no recipe, no list of overrides, overrides for a recipe that is loaded, or no
            text.
    """
    if isinstance(overrides, str) and "=" in overrides:  # no folder's name, but one override
        raise RecipeError(
            "overrides are a list",
            where="run_recipe(overrides=...)",
            got=overrides,
            expected='["key.path=value", ...]',
        )
    if isinstance(overrides, str | Path):
        warnings.warn("run_recipe(recipe, folder) is run_recipe(recipe, output_dir=folder) now", DeprecationWarning, 3)
        words["output_dir"], overrides = overrides, ()
    for name, value in words.items():
        if value is not None and not isinstance(value, str | Path):
            raise RecipeError("no text", where=f"run_recipe({name}=...)", got=value, expected="a name or a path")
    if isinstance(recipe, str | Path):
        return load_recipe(recipe, overrides)
    if not isinstance(recipe, Recipe):
        raise RecipeError(
            "no recipe", where="run_recipe(recipe=...)", got=str(type(recipe)), expected="a file, or a Recipe",
            fix="Write Recipe(**recipe)." if isinstance(recipe, Mapping) else None,
        )  # fmt: skip
    if overrides:
        raise RecipeError(
            "overrides change a recipe's file, and this recipe is loaded", where="run_recipe(overrides=...)",
            got=overrides, fix="Give them to load_recipe.",
        )  # fmt: skip
    return recipe
