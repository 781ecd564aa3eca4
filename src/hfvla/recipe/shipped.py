"""The recipes that come with the package: inside an installed one, or in the checkout that it runs from."""

from __future__ import annotations

import shutil
from pathlib import Path

import hfvla.recipe
from hfvla.errors import RecipeError, did_you_mean
from hfvla.outputs import claim_file

__all__ = ["copy_recipe", "shipped_recipes"]

_PACKAGE = Path(hfvla.recipe.__file__).resolve().parents[1]
_PLACES = (_PACKAGE / "shipped" / "recipes", _PACKAGE.parents[1] / "recipes")
"""Where the build puts them (setup.py), and where they lie in a checkout."""


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes' files by name, e.g. "ember_vlm/tiny".

    Raises:
        RecipeError: the installation is without them.
    """
    for place in _PLACES:
        found = {path.relative_to(place).with_suffix("").as_posix(): path for path in sorted(place.glob("*/*.yaml"))}
        recipes = {name: path for name, path in found.items() if "\nstages:" in path.read_text(encoding="utf-8")}
        if recipes:
            return recipes
    raise RecipeError("this installation has no recipes in it", where=str(_PLACES[0]), fix="Install hfvla anew.")


def copy_recipe(name: str, target: str | Path, overwrite: bool = False) -> Path:
    """Copy a recipe to a file of the user's, to be changed.

    Args:
        name: as `shipped_recipes` has it.
        target: the file.
        overwrite: replace one that is there.

    Raises:
        RecipeError: no such recipe; the message suggests the nearest.
        HfvlaError: the file is there already, or cannot be written.
    """
    known = shipped_recipes()
    if name not in known:
        raise RecipeError(f"no recipe '{name}'. {did_you_mean(name, known)}")
    path = claim_file(target, overwrite, "--output", error=RecipeError)
    shutil.copyfile(known[name], path)
    return path
