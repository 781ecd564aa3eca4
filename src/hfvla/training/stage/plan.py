"""StagePlan: the stages of a recipe that a run trains, and what stands for those it does not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hfvla.errors import CheckpointError, RecipeError, did_you_mean
from hfvla.paths import expand_user
from hfvla.recipe import Recipe, Stage

__all__ = ["StagePlan"]


@dataclass(frozen=True)
class StagePlan:
    """The stages of a recipe that a run trains.

    Attributes:
        stages: stages to run, in order.
        folders: checkpoint by name of each stage that is given instead of run.
    """

    stages: tuple[Stage, ...]
    folders: dict[str, Path]

    @classmethod
    def from_recipe(
        cls,
        recipe: Recipe,
        start_at: str | None = None,
        from_checkpoint: str | Path | None = None,
        stop_after: str | None = None,
    ) -> StagePlan:
        """Select stages by name.

        Args:
            recipe: the recipe.
            start_at: first stage to run; those before it are not trained.
            from_checkpoint: folder that stands for the stage before `start_at`.
            stop_after: last stage to run.

        Raises:
            RecipeError: no such stage, stages in the wrong order, or a stage that needs one neither run nor given.
        """
        names = [stage.name for stage in recipe.stages]
        for option, name in (("start_at", start_at), ("stop_after", stop_after)):
            if name is not None and name not in names:
                raise RecipeError(f"{option}: no stage '{name}'. {did_you_mean(name, names)}")
        first = names.index(start_at) if start_at else 0
        last = names.index(stop_after) if stop_after else len(names) - 1
        if first > last:
            raise RecipeError("start_at comes after stop_after", got=f"{start_at} > {stop_after}", expected=names)
        if (first > 0) != (from_checkpoint is not None):
            raise RecipeError(
                f"stage '{names[first]}' starts from the stage before it"
                if first
                else "a checkpoint to start from needs a later stage to start at",
                got=f"start_at={start_at}, from={from_checkpoint}",
                fix="Give both start_at and from." if first else "Use model.pretrained for the first stage.",
            )
        given = {names[first - 1]: Path(expand_user(str(from_checkpoint)))} if first else {}
        stages = tuple(recipe.stages[first : last + 1])
        known = [*given]
        for stage in stages:
            if stage.handover.from_ is not None and stage.handover.from_ not in known:
                raise RecipeError(
                    f"stage '{stage.name}' takes over from '{stage.handover.from_}', which is neither run nor given",
                    got=known,
                )
            known.append(stage.name)
        return cls(stages, given)

    def check_given(self, output_dir: Path) -> None:
        """Look at the checkpoint that stands for the stage before, before data is read; a finished stage needs none.

        Raises:
            CheckpointError: there is none.
        """
        for folder in self.folders.values():
            first = output_dir / self.stages[0].name
            if not (folder / "config.json").is_file() and not (first / "config.json").is_file():
                raise CheckpointError(
                    "not a checkpoint: no config.json in this folder", where=str(folder),
                    fix="Pass the folder of a stage, e.g. outputs/<run>/<stage>.",
                )  # fmt: skip
