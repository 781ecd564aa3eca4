"""Configs and models of a recipe without weights, and whether this machine can hold them, before it allocates any."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from hfvla.backbones.shapes import VLM_SHAPES
from hfvla.errors import CheckpointError, RecipeError
from hfvla.family import FamilySpec
from hfvla.fetching import local_checkpoint
from hfvla.recipe import Recipe
from hfvla.recipe.config_checks import change_problems
from hfvla.recipe.document import format_steps
from hfvla.training.run.preflight import model_errors

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["base_config", "check_models", "merge_config", "merge_keys", "meta_model"]

_GIB = 2**30


def check_models(recipe: Recipe, spec: FamilySpec) -> None:
    """Build the model of every stage on the meta device, and compare its bytes with the machine's.

    Args:
        recipe: a checked recipe.
        spec: its family.

    Raises:
        RecipeError: a config that no model can be built from, or weights that do not fit into all memory here.
        CheckpointError: the config of `model.pretrained` is of another family.
    """
    configs: dict[str | None, Any] = {None: base_config(recipe, spec)}
    memory = _memory_bytes()
    for index, stage in enumerate(recipe.stages):
        source = stage.handover.from_ or (recipe.stages[index - 1].name if index else None)
        configs[stage.name] = merge_config(configs[source], stage.model)
        if index and not stage.model:
            continue
        model = meta_model(spec, configs[stage.name])
        size = sum(part.numel() * part.element_size() for part in [*model.parameters(), *model.buffers()])
        if size > memory:
            count = sum(parameter.numel() for parameter in model.parameters())
            raise RecipeError(
                f"stage '{stage.name}': the weights of {count:,} parameters take {size / _GIB:,.0f} GiB, and the "
                f"machines of this run have {memory / _GIB:,.0f}; lower the sizes in model.config"
            )


def base_config(recipe: Recipe, spec: FamilySpec) -> Any:
    """Return the config that a recipe's first stage starts from; CheckpointError: its checkpoint does not serve."""
    name = recipe.model.pretrained
    if name is None:
        with model_errors("model.config"):
            return spec.load("build_config")(recipe.model.model_dump())
    if spec.plain and name in VLM_SHAPES:  # a plan needs no download; a run reads the checkpoint's own
        return merge_config(_known(VLM_SHAPES[name]), recipe.model.config)
    from hfvla.registry import family_of_checkpoint

    found = family_of_checkpoint(name, recipe.model.revision)
    if found.name != spec.name:
        raise CheckpointError("the checkpoint is of another family", where=name, got=found.name, expected=spec.name)
    folder = local_checkpoint(name, recipe.model.revision, weights=False)
    return merge_config(spec.load("config").from_pretrained(folder), recipe.model.config)


def _known(shape: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    settings = copy.deepcopy(shape)
    return AutoConfig.for_model(settings.pop("model_type"), **settings)


def merge_config(config: PreTrainedConfig, changes: Mapping[str, Any]) -> Any:
    """Return a new config of the same class with `changes` merged in, nested mappings key by key.

    Raises:
        RecipeError: a key that the config, or one of its parts, does not have, or a value of another type.
    """
    problems = change_problems(config, changes)
    if problems:
        raise RecipeError([f"model: {format_steps(problem.steps)}: {problem.text}" for problem in problems])
    with model_errors("model"):
        return type(config)(**merge_keys(config.to_dict(), dict(changes)))


def merge_keys(old: Any, new: Any) -> Any:
    """Return a value with another laid over it, mappings key by key."""
    if isinstance(old, dict) and isinstance(new, Mapping):
        return {**old, **{key: merge_keys(old.get(key), value) for key, value in new.items()}}
    return copy.deepcopy(new)


def meta_model(spec: FamilySpec, config: PreTrainedConfig) -> Any:
    """Return a family's model on the meta device: shapes, and no memory."""
    with model_errors("model.config"), torch.device("meta"):
        return spec.new_model(config)


def _memory_bytes() -> int:
    """Return the memory of this machine and its GPUs, once for every process of the run."""
    own = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    own += sum(torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count()))
    return own * max(1, int(os.environ.get("WORLD_SIZE", "1")))
