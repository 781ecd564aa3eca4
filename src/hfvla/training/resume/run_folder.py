"""The folder of a run: whose it is, what may change in its recipe, and how parts of it are replaced."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hfvla.errors import RecipeError
from hfvla.recipe import Recipe, diff_recipes, load_resolved, save_resolved
from hfvla.training.record import read_json, remove_leftovers, saving, write_json
from hfvla.training.resume.files import TEMPORARY, sync_folder
from hfvla.training.resume.lock import FolderLock

__all__ = ["lock_run_folder", "open_run_folder", "replace_folder"]

logger = logging.getLogger(__name__)

_SHOWN = 20
_NEVER_CHANGES = ("family", "seed", "model")


def open_run_folder(
    folder: Path, recipe: Recipe, *, overwrite: bool = False, allow_recipe_change: bool = False
) -> list[dict[str, Any]]:
    """Save the recipe in a run folder, or check that the run found there is this one.

    Args:
        folder: run folder, locked (`lock_run_folder`).
        recipe: the recipe.
        overwrite: delete an earlier run in it first.
        allow_recipe_change: go on with a recipe that differs where a run may change on its way.

    Returns:
        `list[dict]`: the changes accepted so far, each with "time" and "changes".

    Raises:
        RecipeError: the folder holds a run of another recipe, or the recipe differs in what cannot change.
        CheckpointError: the folder cannot be written.
    """
    with saving("the run", folder):
        if overwrite:
            _delete_run(folder)
        _remove_leftovers(folder, recipe)
        accepted = _accepted_changes(folder, recipe, allow_recipe_change)
        save_resolved(recipe, folder / "recipe.json")
    return accepted


def lock_run_folder(folder: Path) -> FolderLock:
    """Create a run folder, or check that it is one, and keep other runs out of it.

    Raises:
        RecipeError: the folder holds other files, or another run is writing there.
        CheckpointError: the folder cannot be written.
    """
    with saving("the run", folder):
        if folder.exists():
            _check_is_run(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(folder)
        lock.acquire()
    return lock


def _check_is_run(folder: Path) -> None:
    # A cache may be built ahead, and a run may be killed while it writes its very first file.
    others = [path for path in folder.iterdir() if path.name not in ("cache", ".lock") and path.suffix != ".tmp"]
    if others and not (folder / "recipe.json").is_file():
        raise RecipeError(
            "this folder holds other files and is not a run of hfvla",
            where=str(folder),
            fix="Choose another --output, or empty the folder yourself.",
        )


def _delete_run(folder: Path) -> None:
    """Delete a run; recipe.json goes last, so that a deletion that was cut short can be gone on with."""
    for path in folder.iterdir():
        if path.name not in ("recipe.json", ".lock"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (folder / "recipe.json").unlink(missing_ok=True)


def _remove_leftovers(folder: Path, recipe: Recipe) -> None:
    """Delete the temporary files and folders that an interrupted run left."""
    for place in (folder, *(folder / stage.name for stage in recipe.stages)):
        remove_leftovers(place)
    for path in list(folder.glob(f"{TEMPORARY}*")):
        shutil.rmtree(path)


def _accepted_changes(folder: Path, recipe: Recipe, allowed: bool) -> list[dict[str, Any]]:
    history: list[dict[str, Any]] = read_json(folder / "recipe_changes.json") or []
    saved = folder / "recipe.json"
    if not saved.is_file():
        return history
    before = load_resolved(saved)
    changes = [line for line in diff_recipes(before, recipe) if not line.startswith("output_dir:")]
    if not changes:
        return history
    if not allowed:
        raise RecipeError(
            "this folder holds a run of another recipe",
            where=str(folder),
            got=_shown(changes),
            fix="Choose another --output, pass --allow-recipe-change to go on with the new values, or --overwrite to "
            "delete that run.",
        )
    finished = [stage.name for stage in before.stages if (folder / stage.name / "stage.json").is_file()]
    _check_changes(folder, before, recipe, changes, finished)
    for line in changes:
        stays = any(line.startswith(f"stages.{name}.") for name in finished)
        logger.warning("recipe changed: %s%s", line, " (that stage is finished and stays as it is)" if stays else "")
    history.append({"time": datetime.now(UTC).isoformat(timespec="seconds"), "changes": changes})
    write_json(folder / "recipe_changes.json", history)
    return history


def _check_changes(folder: Path, before: Recipe, after: Recipe, changes: Sequence[str], finished: list[str]) -> None:
    """Refuse changes that would make the finished part another run's.

    Raises:
        RecipeError: naming them.
    """
    fixed = [line for line in changes if line.split(":")[0].split(".")[0] in _NEVER_CHANGES]
    if fixed:
        raise RecipeError(
            "family, seed and model of a run cannot change on its way",
            where=str(folder),
            got=_shown(fixed),
            fix="Undo this, or choose another --output.",
        )
    if finished:
        count = max(index for index, stage in enumerate(before.stages) if stage.name in finished) + 1
        old, new = ([stage.name for stage in recipe.stages[:count]] for recipe in (before, after))
        if old != new:
            raise RecipeError(
                "stages that are finished cannot be renamed, reordered or left out",
                where=str(folder),
                got=f"stages {', '.join(new)}",
                expected=f"{', '.join(old)} first",
                fix="Undo this, or choose another --output.",
            )


def _shown(changes: Sequence[str]) -> str:
    more = f"; and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    return "; ".join(changes[:_SHOWN]) + more


def replace_folder(temporary: Path, final: Path) -> None:
    """Put a finished folder in the place of an older one; a reader never sees half of it."""
    sync_folder(temporary)
    if final.exists():
        old = final.with_name(f"{TEMPORARY}old-{final.name}")
        final.rename(old)
        temporary.rename(final)
        shutil.rmtree(old)
    else:
        temporary.rename(final)
