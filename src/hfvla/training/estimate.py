"""What a recipe would do, without doing it: parts, trainable tables, steps and checkpoint bytes."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import Any

from hfvla.errors import CheckpointError
from hfvla.family import FamilySpec, resolve
from hfvla.recipe import Recipe, SourceRecipe, Stage, build_options
from hfvla.registry import get_family
from hfvla.training.data import build_source
from hfvla.training.freeze import assign_parameters, table_dicts, trainable_table
from hfvla.training.stage import merge_config

__all__ = ["plan_recipe"]

_DEFAULT_EPOCHS, _DEFAULT_BATCH, _DEFAULT_RATE = 3.0, 8, 5e-5  # TrainingArguments' own defaults


def plan_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return what each stage would train, for how many steps, and what it would save.

    Builds models on the meta device: no weights, no download (except the config of `model.pretrained`).

    Args:
        recipe: a checked recipe.

    Returns:
        `dict`: "family", "recipe", "parameters" (by part), "total_parameters", "stages".

    Raises:
        CheckpointError: the config of `model.pretrained` is of another family.
        RecipeError: a group that matches nothing.
    """
    spec = get_family(recipe.family)
    config = _base_config(recipe, spec)
    counts: dict[str, int] = {}
    stages: list[dict[str, Any]] = []
    configs: dict[str | None, Any] = {}
    for index, stage in enumerate(recipe.stages):
        source = stage.handover.from_ or (recipe.stages[index - 1].name if index else None)
        configs[stage.name] = merge_config(configs.get(source, config), stage.model)
        stages.append(_plan_stage(recipe, spec, stage, _meta_model(spec, configs[stage.name]), counts))
    model = _meta_model(spec, configs[recipe.stages[-1].name])
    return {
        "family": spec.name,
        "recipe": recipe.name,
        "parameters": _parts(model, spec),
        "total_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "stages": stages,
    }


def _base_config(recipe: Recipe, spec: FamilySpec) -> Any:
    name = recipe.model.pretrained
    if name is None:
        return spec.load("build_config")(recipe.model.model_dump())
    from hfvla.registry import family_of_checkpoint

    found = family_of_checkpoint(name)
    if found.name != spec.name:
        raise CheckpointError("the checkpoint is of another family", where=name, got=found.name, expected=spec.name)
    return merge_config(spec.load("config").from_pretrained(name), recipe.model.config)


def _meta_model(spec: FamilySpec, config: Any) -> Any:
    import torch

    with torch.device("meta"):
        return spec.load("model")(config)


def _parts(model: Any, spec: FamilySpec) -> list[dict[str, Any]]:
    parameters = dict(model.named_parameters())
    rows = []
    for part, patterns in spec.parameter_table.items():
        names = [name for name in parameters if any(fnmatchcase(name, pattern) for pattern in patterns)]
        total = sum(parameters[name].numel() for name in names)
        rows.append({"part": part, "tensors": len(names), "parameters": total})
    return rows


def _plan_stage(recipe: Recipe, spec: FamilySpec, stage: Stage, model: Any, counts: dict[str, int]) -> dict[str, Any]:
    arguments = recipe.stage_args(stage)
    rate = float(arguments.get("learning_rate", _DEFAULT_RATE))
    trained = assign_parameters(model, spec.groups, stage.train)
    rates = {entry: stage.learning_rates.get(entry, rate) for entry in stage.train}
    rows = table_dicts(trainable_table(model, spec.groups, trained, rates))
    held_out = recipe.data.validation
    samples = 0
    for entry in recipe.stage_sources(stage):
        kept = 1 - held_out.fraction if held_out.sources is None or entry.label in held_out.sources else 1.0
        samples += round(_count(recipe, spec, entry, counts) * entry.weight * kept)
    batch = int(arguments.get("per_device_train_batch_size", _DEFAULT_BATCH))
    accumulation = int(arguments.get("gradient_accumulation_steps", 1))
    epochs = float(arguments.get("num_train_epochs", _DEFAULT_EPOCHS))
    per_epoch = max(1, math.ceil(math.ceil(samples / batch) / accumulation))
    steps = int(arguments.get("max_steps", -1))
    return {
        "name": stage.name,
        "samples": samples,
        "steps": steps if steps > 0 else math.ceil(per_epoch * epochs),
        "epochs": epochs,
        "batch_size": batch * accumulation,
        "groups": rows[:-1],
        "total": rows[-1],
        "trainable_parameters": rows[-1]["trainable"],
        "losses": dict(stage.losses),
        "checkpoint_bytes": _checkpoint_bytes(model),
    }


def _count(recipe: Recipe, spec: FamilySpec, entry: SourceRecipe, counts: dict[str, int]) -> int:
    """Return the rows of a source, asked of the source where it can tell without building them."""
    if entry.weight == 0:
        return 0
    source = spec.source(entry.source)
    where = f"data.train.{entry.label}"
    key = f"{entry.source}:{sorted(entry.options.items())}"
    if key not in counts:
        if source.count is not None:
            counts[key] = resolve(source.count)(build_options(spec, entry.source, entry.options, where=where))
        else:
            counts[key] = len(build_source(spec, entry, recipe, where).dataset)
    return counts[key]


def _checkpoint_bytes(model: Any) -> int:
    """Return bytes of the saved weights: parameters and buffers, shared tensors once."""
    buffers = [buffer for buffer in model.buffers() if buffer is not None]
    return sum(tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *buffers])
