"""The feature cache of a stage: which cut it uses, its rows with cached features, and building it ahead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfvla.cache import CacheCensus, CachedCollator, FeatureCache, Split, choose_cut
from hfvla.family import ParameterGroup
from hfvla.recipe import Recipe, Stage
from hfvla.training.lora.injection import lora_targets
from hfvla.training.run.context import StageContext
from hfvla.training.stage.data import StageRows
from hfvla.training.stage.groups import (
    LORA_GROUP,
    TRAINED_ADAPTER,
    adapter_of,
    adapter_parameters,
    expand_group,
    plain_parameters,
)
from hfvla.training.stage.phases import loss_terms, phase_entries

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, ProcessorMixin


__all__ = ["cache_folder", "cached_rows", "ever_trained"]


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


def _feature_cache(
    run: StageContext, model: PreTrainedModel, processor: ProcessorMixin, arguments: Any
) -> FeatureCache:
    import torch

    stage, settings = run.stage, run.stage.cache
    assert settings is not None
    where = f"stage '{stage.name}'"
    trained, losses = ever_trained(model, run.spec.groups, stage), loss_terms(stage)
    name, _ = choose_cut(run.spec, trained, where, settings.cut, losses)
    autocast = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else None
    return FeatureCache(
        run.spec,
        name,
        model,
        processor,
        settings,
        cache_folder(run.recipe, stage, run.folder.parent),
        run.state,
        losses=losses,
        seed=run.recipe.seed,
        revision=run.recipe.model.revision,
        batch_size=arguments.per_device_eval_batch_size,
        workers=arguments.dataloader_num_workers,
        autocast=autocast,
    )


def cached_rows(
    run: StageContext,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    rows: StageRows,
    collator: Any,
    arguments: Any,
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


def _splits(rows: StageRows) -> dict[str, Split]:
    held = {} if rows.validation is None else {"validation": Split(rows.validation, training=False)}
    return {"train": Split(rows.train), **held}
