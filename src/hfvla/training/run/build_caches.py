"""Building the feature caches of a recipe ahead of training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfvla.cache import CacheCensus, matches
from hfvla.errors import RecipeError, did_you_mean
from hfvla.recipe import Recipe, Stage
from hfvla.training.run.arguments import stage_arguments, start_processes
from hfvla.training.run.caching import _feature_cache, _splits, ever_trained
from hfvla.training.stage.data import RecipeData

if TYPE_CHECKING:
    from hfvla.training.run.run import RecipeRun
    from hfvla.training.run.stage_run import StageRun

__all__ = ["build_caches"]


def build_caches(
    recipe: Recipe, stage: str | None = None, output_dir: str | Path | None = None
) -> list[dict[str, Any]]:
    """Build the caches of a recipe ahead of training, or that of one stage; return a census by stage.

    A stage after the first uses the checkpoint of the one before where that is finished. Where it is not, the model of
    the start stands for it, provided that nothing before the cut changes until then.

    Args:
        recipe: a checked recipe.
        stage: the only stage whose cache is built; default: every stage that has one.
        output_dir: run folder; default is the recipe's.

    Raises:
        RecipeError: no such stage, one without `cache`, or one whose frozen part an unfinished stage still trains.
    """
    from hfvla.training.run.run import RecipeRun
    from hfvla.training.run.run_folder import claim_run_folder
    from hfvla.training.stage.plan import StagePlan

    names = [entry.name for entry in recipe.stages]
    if stage is not None and stage not in names:
        raise RecipeError(f"no stage '{stage}'. {did_you_mean(stage, names)}")
    chosen = [entry for entry in recipe.stages if (stage in (None, entry.name)) and entry.cache is not None]
    if not chosen:
        raise RecipeError(
            f"stage '{stage}' has no `cache`" if stage else "no stage of this recipe has a `cache`",
            fix="Add `cache: true` to the stage whose frozen part is to be computed once.",
        )
    state = start_processes(recipe)
    run = RecipeRun(recipe, StagePlan.from_recipe(recipe), Path(output_dir or recipe.output_dir), state)
    if (run.output_dir / "recipe.json").is_file():  # its finished stages count, so it must be this recipe's run
        run.open_folder(overwrite=False)
    elif state.is_main_process and any(entry.cache is not None and not entry.cache.folder for entry in chosen):
        claim_run_folder(run.output_dir)
    try:
        data = RecipeData(run.spec, recipe, meeting=run.meeting)
        return [{"stage": entry.name, **_build_ahead(run, data, entry).to_dict()} for entry in chosen]
    finally:
        run.close_folder()


def _build_ahead(run: RecipeRun, data: RecipeData, stage: Stage) -> CacheCensus:
    from hfvla.training.run.stage_run import StageRun

    def stage_run(of: Stage) -> StageRun:
        return StageRun(run.recipe, run.spec, of, run.output_dir / of.name, run.state)

    finished = {of.name: run.output_dir / of.name for of in run.recipe.stages if stage_run(of).finished()}
    path = [stage]  # this stage, and those before it that have yet to train
    while (source := _source(run.recipe, path[-1])) is not None and source.name not in finished:
        path.append(source)
    model, processor, _ = stage_run(path[-1])._take_over(data, finished)
    rows, target = data.stage_rows(stage), stage_run(stage)
    spec = target.spec = run.spec.of_model(model, run.recipe.model.options)
    arguments = stage_arguments(run.recipe, stage, spec, target.folder, rows.validation is not None)
    cache = _feature_cache(target, model, processor, arguments)
    changed = sorted({key for of in path[:-1] for key in of.model} & {*cache.cut.config})
    for earlier in path[1:]:
        trained = ever_trained(model, spec.groups, earlier)
        if changed or any(matches(name, cache.cut, spec.groups) for name in trained):
            raise RecipeError(
                f"stage '{stage.name}': what its cache holds depends on stage '{earlier.name}', which is not finished",
                got=f"model.{changed[0]} changes" if changed else f"{', '.join(cache.cut.groups)} trains there",
                fix=f"Run `hfvla train --stop-after {path[1].name}` into the same folder first.",
            )
    return cache.build(_splits(rows))[1]


def _source(recipe: Recipe, stage: Stage) -> Stage | None:
    """Return the stage that this one takes its weights from, or None for the start of a run."""
    index = recipe.stages.index(stage)
    if stage.handover.from_ is not None:
        return recipe.stage(stage.handover.from_)
    return recipe.stages[index - 1] if index else None
