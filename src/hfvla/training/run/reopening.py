"""Going back in a run: a finished stage trained longer, or a stage gone on with from an earlier checkpoint."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hfvla.errors import CheckpointError, RecipeError, did_you_mean
from hfvla.recipe import Recipe, diff_recipes, load_resolved
from hfvla.sealing import MANIFEST
from hfvla.training.checkpoint.files import checkpoint_step, last_checkpoint, read_manifest, remove_checkpoint
from hfvla.training.checkpoint.record import read_json
from hfvla.training.run.stage_scores import forget_scores

__all__ = ["Reopening"]

logger = logging.getLogger(__name__)

_LENGTH = re.compile(r"(?:^|\.)args\.(num_train_epochs|max_steps): ")
_KEEP = "keep_checkpoints: last (or all) in the stage keeps them, in a run that begins with it"


@dataclass(frozen=True)
class Reopening:
    """What a run goes back to before it goes on.

    Attributes:
        extend: a finished stage that trains on from its last checkpoint, for as long as the recipe now says; later
            stages are trained anew.
        resume_from: `checkpoint-N` of the stage that is not finished, or `STAGE/checkpoint-N`; what was trained after
            it is trained anew.
    """

    extend: str | None = None
    resume_from: str | None = None

    def __bool__(self) -> bool:
        return self.extend is not None or self.resume_from is not None

    def allowed(self, change: str) -> bool:
        """Tell whether a changed line of the recipe is what is asked for: another length of the stage, or of all."""
        key = change.partition(": ")[0]
        own = key.startswith(f"stages.{self.extend}.") or key.startswith("args.")
        return self.extend is not None and own and _LENGTH.search(change) is not None

    def prepare(self, folder: Path, recipe: Recipe) -> Callable[[], None]:
        """Look whether all is there, and return what opens the stages that are trained again (main process).

        Args:
            folder: run folder, locked.
            recipe: the recipe as it is now.

        Raises:
            RecipeError: both ways back at once, no such stage, or a length that was reached already.
            CheckpointError: no run, or no checkpoint to go on from.
        """
        if not self:
            return _nothing
        saved = folder / "recipe.json"
        if not saved.is_file():
            raise CheckpointError("there is no run to go back in", where=str(folder), fix="Train without this option.")
        if self.extend is not None and self.resume_from is not None:
            raise RecipeError("--extend and --resume-from are two ways back; take one")
        before = load_resolved(saved)
        return self._go_back(folder, before) if self.extend is None else self._extend(folder, before, recipe)

    def _extend(self, folder: Path, before: Recipe, recipe: Recipe) -> Callable[[], None]:
        stage = _known(str(self.extend), before, "--extend")
        place = folder / stage
        longer = [line for line in diff_recipes(before, recipe) if self.allowed(line)]
        if not longer:
            history = read_json(folder / "recipe_changes.json", list) or ()
            changes = [line for entry in history for line in entry["changes"]]
            if any(self.allowed(line) for line in changes):
                return _nothing  # the same command again: it was extended before, and goes on
            raise RecipeError(
                "the recipe trains this stage no longer than before", where=f"--extend {stage}",
                fix=f"Say how long, e.g. stages.{stage}.args.num_train_epochs=10 (all epochs, old and new).",
            )  # fmt: skip
        if not (place / "stage.json").is_file():
            logger.info("stage '%s' is not finished; it goes on for as long as the recipe now says", stage)
            return _nothing
        found = last_checkpoint(place / "checkpoints")
        if found is None:
            raise CheckpointError(
                "the stage was finished and its optimizer state is gone", where=str(place / "checkpoints"),
                expected="the checkpoint of its last step",
                fix=f"{_KEEP}. Without it, name the stage's folder as model.pretrained of a new recipe: its weights "
                "train on with a new optimizer.",
            )  # fmt: skip
        return lambda: _open_from(folder, before, stage, f"trains on from {found.name}: {'; '.join(longer)}")

    def _go_back(self, folder: Path, before: Recipe) -> Callable[[], None]:
        stage, name = _named(str(self.resume_from), folder, before)
        place = folder / stage / "checkpoints"
        chosen = place / name
        manifest = read_manifest(chosen)
        if manifest is None or not manifest.get("resumable", True):
            there = [path.name for path in _steps(place) if read_manifest(path) is not None]
            raise CheckpointError(
                "no complete checkpoint of that name to go on from", where=f"--resume-from {self.resume_from}",
                got=name, expected=f"one of {', '.join(there)}" if there else f"checkpoints in {place}",
                fix=None if there else _KEEP + ".",
            )  # fmt: skip
        later = [path for path in _steps(place) if (checkpoint_step(path) or 0) > (checkpoint_step(chosen) or 0)]
        return lambda: _open_from(folder, before, stage, f"goes on from {name}", later)


def _nothing() -> None:
    """Open no stage."""


def _steps(place: Path) -> list[Path]:
    found = [path for path in place.glob("checkpoint-*") if checkpoint_step(path) is not None]
    return sorted(found, key=lambda path: checkpoint_step(path) or 0)


def _known(stage: str, recipe: Recipe, where: str) -> str:
    names = [one.name for one in recipe.stages]
    if stage not in names:
        raise RecipeError(f"{where}: the run has no stage '{stage}'. {did_you_mean(stage, names)}")
    return stage


def _named(text: str, folder: Path, recipe: Recipe) -> tuple[str, str]:
    """Return stage and checkpoint of `checkpoint-N`, `STAGE/checkpoint-N` or a path to one.

    Raises:
        RecipeError: something else, or no stage of that name.
    """
    parts = [part for part in Path(text).parts if part != "checkpoints"]
    if not parts or checkpoint_step(Path(parts[-1])) is None:
        raise RecipeError(
            "not a checkpoint's name", where="--resume-from", got=text, expected="checkpoint-N or STAGE/checkpoint-N"
        )
    if len(parts) > 1:
        return _known(parts[-2], recipe, "--resume-from"), parts[-1]
    unfinished = [one.name for one in recipe.stages if not (folder / one.name / "stage.json").is_file()]
    return (unfinished or [recipe.stages[-1].name])[0], parts[-1]


def _open_from(folder: Path, recipe: Recipe, stage: str, how: str, checkpoints: Sequence[Path] = ()) -> None:
    """Take the mark of being finished from a stage; delete some of its checkpoints, and the stages after it."""
    logger.warning("stage '%s' %s", stage, how)
    names = [one.name for one in recipe.stages]
    later = names[names.index(stage) + 1 :]
    begun = [name for name in later if (folder / name).is_dir()]
    if begun:
        logger.warning("deleted, as they are trained anew: stages %s", ", ".join(begun))
    for name in reversed(begun):
        (folder / name / "stage.json").unlink(missing_ok=True)
        shutil.rmtree(folder / name)
    forget_scores(folder, [stage, *later])
    for name in ("stage.json", MANIFEST):
        (folder / stage / name).unlink(missing_ok=True)
    if checkpoints:
        logger.warning("deleted, as it is trained anew: %s", ", ".join(path.name for path in checkpoints))
    for path in reversed(checkpoints):
        remove_checkpoint(path)
