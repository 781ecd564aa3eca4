"""The folder of a run: whose it is, what may change in its recipe, and how parts of it are replaced."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hfvla.errors import CheckpointError, RecipeError
from hfvla.outputs import MARK, check_folder, claim_folder, create_folder, mark_folder, marked_files, shown
from hfvla.recipe import Recipe, diff_recipes, load_resolved, save_resolved
from hfvla.training.checkpoint.files import TEMPORARY, sync_folder
from hfvla.training.checkpoint.record import read_json, remove_leftovers, saving, write_json
from hfvla.training.checkpoint.rows import ROWS
from hfvla.training.run.lock import FolderLock
from hfvla.training.run.reopening import Reopening

__all__ = ["claim_run_folder", "lock_run_folder", "open_run_folder", "replace_folder"]

logger = logging.getLogger(__name__)

_SHOWN = 20
_RUN_FILES = {
    *("recipe.json", "recipe_changes.json", ROWS, "run.json", "experiment_summary.json"),
    *("metrics.json", "report.json", "report.html", "plots", "final", "cache", "logs"),
}
_STAGE_FILES = ("stage.json", "trainable.json", "checkpoints")
_NEVER_CHANGES = ("family", "seed", "model")


def open_run_folder(
    folder: Path,
    recipe: Recipe,
    *,
    overwrite: bool = False,
    allow_recipe_change: bool = False,
    reopening: Reopening | None = None,
) -> list[dict[str, Any]]:
    """Save the recipe in a run folder, or check that the run found there is this one.

    Args:
        folder: run folder, locked (`lock_run_folder`).
        recipe: the recipe.
        overwrite: delete an earlier run in it first.
        allow_recipe_change: go on with a recipe that differs where a run may change on its way.
        reopening: stages that are opened again first.

    Returns:
        `list[dict]`: the changes accepted so far, each with "time" and "changes".

    Raises:
        RecipeError: the folder holds a run of another recipe, or the recipe differs in what cannot change.
        CheckpointError: the folder cannot be written; there is nothing to go back to.
    """
    reopening = reopening or Reopening()
    if overwrite and reopening:
        raise RecipeError("--overwrite deletes the run that --extend and --resume-from go on with")
    with saving("the run", folder):
        if overwrite:
            _delete_run(folder, recipe)
        _remove_leftovers(folder, recipe)
        open_stages = reopening.prepare(folder, recipe)
        _refuse_changes(folder, recipe, allow_recipe_change, reopening)
        open_stages()
        accepted = _accepted_changes(folder, recipe)
        save_resolved(recipe, folder / "recipe.json")
    return accepted


def claim_run_folder(folder: Path) -> None:
    """Create and mark a run folder ahead of its run, for a cache that is built first.

    Raises:
        RecipeError: the folder holds other files, or cannot be created.
    """
    claim_folder(folder, "run", before_marks=_is_old_run, error=RecipeError)


def lock_run_folder(folder: Path) -> FolderLock:
    """Create a run folder, or check that it is one, keep other runs out of it, and mark it as a run's.

    Raises:
        RecipeError: the folder holds other files or cannot be created, or another run is writing there.
        CheckpointError: the folder cannot be written.
    """
    check_folder(folder, "run", before_marks=_is_old_run, error=RecipeError)
    with saving("the run", folder):
        create_folder(folder, error=RecipeError)
        lock = FolderLock(folder)
        lock.acquire()
        try:
            mark_folder(folder, "run", error=RecipeError)
        except RecipeError:
            lock.release()
            raise
    return lock


def _is_old_run(folder: Path) -> bool:
    """Return whether a folder without a mark is a run from before there were marks, or holds a run's cache alone.

    A recipe.json is not enough: it must be a recipe of this program, and the rest must be what a run writes. Stage
    folders and `final/`, which hold a recipe.json too, are no runs.
    """
    names = {path.name for path in folder.iterdir() if path.name not in (".lock", "cache")}
    names = {name for name in names if not (name.startswith(".") and name.endswith(".tmp"))}
    if not names:
        return True
    if "recipe.json" not in names:
        return False
    try:
        recipe = load_resolved(folder / "recipe.json")
    except RecipeError:
        return False
    stages = {stage.name for stage in recipe.stages}
    begun = [folder / name for name in names & stages if (folder / name).is_dir()]
    ours = {name for name in names if name in _RUN_FILES or name.startswith(TEMPORARY)} | {path.name for path in begun}
    if _is_record(folder / "run.json") or names <= ours:
        return True
    return any(not any(path.iterdir()) or _is_stage(path) for path in begun)


def _is_stage(path: Path) -> bool:
    return path.is_dir() and any((path / name).exists() for name in _STAGE_FILES)


def _is_record(path: Path) -> bool:
    try:
        record = read_json(path)
    except (OSError, CheckpointError):
        return False
    return isinstance(record, dict) and {"recipe", "stages", "seed"} <= set(record)


def _delete_run(folder: Path, recipe: Recipe) -> None:
    """Delete what a run wrote, named first; anything else in the folder stays.

    recipe.json goes last, so that a deletion that was cut short can be gone on with; without one there is no run.

    Raises:
        RecipeError: what stays has the name of a stage.
    """
    known = {*_RUN_FILES, *marked_files(folder), *_stage_names(folder)}
    entries = [path for path in folder.iterdir() if path.name not in (".lock", MARK)]
    begun = (folder / "recipe.json").is_file()
    ours = [path for path in entries if begun and _is_ours(path, known)]
    strange = [path.name for path in entries if path not in ours]
    in_the_way = {stage.name for stage in recipe.stages} & set(strange)
    if in_the_way:
        raise RecipeError(
            "--overwrite deletes only what a run wrote, and this is something else with the name of a stage",
            where=str(folder),
            got=shown(in_the_way),
            fix="Choose another --output, or move it away.",
        )
    if ours:
        logger.warning("--overwrite deletes the run in %s: %s", folder, shown(path.name for path in ours))
    if strange:
        logger.warning("not of the run, and left where it is: %s", shown(strange))
    for path in ours:
        if path.name != "recipe.json":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (folder / "recipe.json").unlink(missing_ok=True)


def _stage_names(folder: Path) -> set[str]:
    try:
        return {stage.name for stage in load_resolved(folder / "recipe.json").stages}
    except RecipeError:
        return set()


def _is_ours(path: Path, known: set[str]) -> bool:
    name = path.name
    if name in known or name.startswith(TEMPORARY) or (name.startswith(".") and name.endswith(".tmp")):
        return True
    if name.startswith("predictions") and name.endswith(".jsonl"):
        return True
    return _is_stage(path)  # one that the recipe has since left out


def _remove_leftovers(folder: Path, recipe: Recipe) -> None:
    """Delete the temporary files and folders that an interrupted run left."""
    for place in (folder, *(folder / stage.name for stage in recipe.stages)):
        remove_leftovers(place)
    for path in list(folder.glob(f"{TEMPORARY}*")):
        shutil.rmtree(path)


def _changes(folder: Path, recipe: Recipe) -> tuple[Recipe, list[str]]:
    """Return the recipe of the run in a folder, and what differs in the new one."""
    saved = folder / "recipe.json"
    before = load_resolved(saved) if saved.is_file() else recipe
    return before, [line for line in diff_recipes(before, recipe) if not line.startswith("output_dir:")]


def _refuse_changes(folder: Path, recipe: Recipe, allowed: bool, reopening: Reopening) -> None:
    _, changes = _changes(folder, recipe)
    changes = [line for line in changes if not reopening.allowed(line)]
    if changes and not allowed:
        raise RecipeError(
            "this folder holds a run of another recipe",
            where=str(folder),
            got=_shown(changes),
            fix="Choose another --output, pass --allow-recipe-change to go on with the new values, or --overwrite to "
            "delete that run.",
        )


def _accepted_changes(folder: Path, recipe: Recipe) -> list[dict[str, Any]]:
    history: list[dict[str, Any]] = read_json(folder / "recipe_changes.json", list) or []
    before, changes = _changes(folder, recipe)
    if not changes:
        return history
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
