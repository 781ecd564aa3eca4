"""The feature cache of a stage: which cut it uses, its rows with cached features, and building it ahead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfvla.cache import CacheCensus, CachedCollator, FeatureCache, Split, choose_cut, matches
from hfvla.errors import RecipeError, did_you_mean
from hfvla.family import ParameterGroup
from hfvla.recipe import Recipe, Stage
from hfvla.training.arguments import stage_arguments, uses_cpu
from hfvla.training.data import RecipeData, StageRows
from hfvla.training.freeze import expand_group
from hfvla.training.lora.injection import lora_targets
from hfvla.training.lora.names import LORA_GROUP, TRAINED_ADAPTER, adapter_of, adapter_parameters, plain_parameters
from hfvla.training.phases import loss_terms, phase_entries

if TYPE_CHECKING:
    from torch import nn

    from hfvla.training.run import RecipeRun
    from hfvla.training.stage import StageRun

__all__ = ["build_caches", "cache_folder", "cached_rows", "ever_trained"]


def ever_trained(model: nn.Module, groups: Mapping[str, ParameterGroup], stage: Stage) -> dict[str, str]:
    """Return, for each parameter that a stage trains at any time, what in the recipe trains it.

    A weight under a LoRA adapter counts as trained: the layer's output changes with the adapter.

    Raises:
        RecipeError: an entry that matches nothing.
    """
    trained: dict[str, str] = {}
    for entry in (entry for entries in phase_entries(stage) for entry in entries):
        if entry != LORA_GROUP or LORA_GROUP in groups:
            trained.update(dict.fromkeys(expand_group(model, groups, entry), f"'{entry}'"))
    if stage.lora is None:
        return trained
    for target in [stage.lora.target] if isinstance(stage.lora.target, str) else stage.lora.target:
        adapted = set(lora_targets(model, groups, stage.lora.model_copy(update={"target": target})))
        plain = plain_parameters(model).items()
        names = [name for name, short in plain if short.rpartition(".")[0] in adapted]
        trained.update(dict.fromkeys(names, f"lora on '{target}'"))
    adapters = [name for name in adapter_parameters(model) if adapter_of(name) == TRAINED_ADAPTER]
    return {**trained, **dict.fromkeys(adapters, "lora")}


def cache_folder(recipe: Recipe, stage: Stage, output_dir: Path) -> Path:
    """Return the folder that holds the caches of a run, or the one the stage names."""
    named = stage.cache.folder if stage.cache is not None else None
    return Path(named) if named else Path(output_dir) / "cache"


def _feature_cache(run: StageRun, model: Any, processor: Any, arguments: Any) -> FeatureCache:
    import torch

    stage, settings = run.stage, run.stage.cache
    assert settings is not None
    where = f"stage '{stage.name}'"
    name, _ = choose_cut(run.spec, ever_trained(model, run.spec.groups, stage), where, settings.cut)
    autocast = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else None
    return FeatureCache(
        run.spec,
        name,
        model,
        processor,
        settings,
        cache_folder(run.recipe, stage, run.folder.parent),
        run.state,
        losses=loss_terms(stage),
        seed=run.recipe.seed,
        revision=run.recipe.model.revision,
        batch_size=arguments.per_device_eval_batch_size,
        workers=arguments.dataloader_num_workers,
        autocast=autocast,
    )


def cached_rows(
    run: StageRun, model: Any, processor: Any, rows: StageRows, collator: Any, arguments: Any
) -> tuple[StageRows, Any, CacheCensus]:
    """Build what a stage's cache lacks, and return its rows with features, the collator for them, and the census.

    Args:
        run: the stage's run; every process calls this.
        model: the stage's model, before it is wrapped.
        processor: its processor.
        rows: training and validation rows.
        collator: the family's collator.
        arguments: the stage's `TrainingArguments`.

    Raises:
        RecipeError: part of every cut trains in this stage, or the inputs are augmented and one view is kept.
        DataError: a sample cannot be encoded.
    """
    cache = _feature_cache(run, model, processor, arguments)
    found, census = cache.build(_splits(rows))
    return StageRows(found["train"], found.get("validation")), CachedCollator(collator, cache.cut), census


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
    from accelerate import PartialState

    from hfvla.training.plan import StagePlan
    from hfvla.training.resume.run_folder import claim_run_folder
    from hfvla.training.run import RecipeRun

    names = [entry.name for entry in recipe.stages]
    if stage is not None and stage not in names:
        raise RecipeError(f"no stage '{stage}'. {did_you_mean(stage, names)}")
    chosen = [entry for entry in recipe.stages if (stage in (None, entry.name)) and entry.cache is not None]
    if not chosen:
        raise RecipeError(
            f"stage '{stage}' has no `cache`" if stage else "no stage of this recipe has a `cache`",
            fix="Add `cache: true` to the stage whose frozen part is to be computed once.",
        )
    state = PartialState(cpu=uses_cpu(recipe))
    run = RecipeRun(recipe, StagePlan.from_recipe(recipe), Path(output_dir or recipe.output_dir), state)
    if (run.output_dir / "recipe.json").is_file():  # its finished stages count, so it must be this recipe's run
        run.open_folder(overwrite=False)
    elif state.is_main_process and any(entry.cache is not None and not entry.cache.folder for entry in chosen):
        claim_run_folder(run.output_dir)
    with state.main_process_first():
        data = RecipeData(run.spec, recipe)
    return [{"stage": entry.name, **_build_ahead(run, data, entry).to_dict()} for entry in chosen]


def _build_ahead(run: RecipeRun, data: RecipeData, stage: Stage) -> CacheCensus:
    from hfvla.training.stage import StageRun

    def stage_run(of: Stage) -> StageRun:
        return StageRun(run.recipe, run.spec, of, run.output_dir / of.name, run.state)

    finished = {of.name: run.output_dir / of.name for of in run.recipe.stages if stage_run(of).finished()}
    path = [stage]  # this stage, and those before it that have yet to train
    while (source := _source(run.recipe, path[-1])) is not None and source.name not in finished:
        path.append(source)
    model, processor, _ = stage_run(path[-1])._take_over(data, finished)
    rows, target = data.stage_rows(stage), stage_run(stage)
    arguments = stage_arguments(run.recipe, stage, run.spec, target.folder, rows.validation is not None)
    cache = _feature_cache(target, model, processor, arguments)
    changed = sorted({key for of in path[:-1] for key in of.model} & {*cache.cut.config})
    for earlier in path[1:]:
        trained = ever_trained(model, run.spec.groups, earlier)
        if changed or any(matches(name, cache.cut, run.spec.groups) for name in trained):
            raise RecipeError(
                f"stage '{stage.name}': what its cache holds depends on stage '{earlier.name}', which is not finished",
                got=f"model.{changed[0]} changes" if changed else f"{', '.join(cache.cut.groups)} trains there",
                fix=f"Run `hfvla train --stop-after {path[1].name}` into the same folder first.",
            )
    return cache.build(_splits(rows))[1]


def _splits(rows: StageRows) -> dict[str, Split]:
    held = {} if rows.validation is None else {"validation": Split(rows.validation, training=False)}
    return {"train": Split(rows.train), **held}


def _source(recipe: Recipe, stage: Stage) -> Stage | None:
    """Return the stage that this one takes its weights from, or None for the start of a run."""
    index = recipe.stages.index(stage)
    if stage.handover.from_ is not None:
        return recipe.stage(stage.handover.from_)
    return recipe.stages[index - 1] if index else None
