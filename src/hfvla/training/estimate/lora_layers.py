"""Which layers of a model can take a LoRA adapter, by parameter group: to look at before writing `lora.target`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

from hfvla.family import FamilySpec, ParameterGroup
from hfvla.fetching import local_checkpoint
from hfvla.recipe.stage_schema import Lora
from hfvla.training.lora.injection import count_lora_parameters, lora_targets
from hfvla.training.stage.groups import plain_name

__all__ = ["describe_lora_targets", "lora_layer_rows", "lora_target_row"]

_ANY = "re:.*"
_RECIPES = (".yaml", ".yml")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


def describe_lora_targets(source: str, targets: Sequence[str] = (), rank: int = 16) -> dict[str, Any]:
    """Describe the layers of a recipe's or a checkpoint's model that can take an adapter; reads no weights.

    Args:
        source: recipe (.yaml), checkpoint folder, or hub id.
        targets: entries as in `lora.target`; default: those of the recipe's stages.
        rank: rank of the adapters whose parameters are counted.

    Returns:
        `dict`: family; layers, one row a group and kind of layer; targets, one row an entry with what it matches; and
        names, the matched modules by entry.

    Raises:
        RecipeError: a bad recipe, or a target that matches no layer (the nearest names are listed).
        CheckpointError: no such checkpoint.
    """
    spec, model, wanted = _meta_model_of(source)
    entries = [Lora(target=target, r=rank) for target in targets] if targets else wanted
    names = {_written(lora): lora_targets(model, spec.groups, lora) for lora in entries}
    return {
        "family": spec.name,
        "layers": lora_layer_rows(model, spec.groups),
        "targets": [lora_target_row(model, spec.groups, lora) for lora in entries],
        "names": names,
    }


def _meta_model_of(source: str) -> tuple[FamilySpec, nn.Module, list[Lora]]:
    """Return family, model on the meta device, and the `lora:` of each stage."""
    from hfvla.training.estimate.recipe import base_config, meta_model

    if not source.endswith(_RECIPES) or Path(source).is_dir():
        from hfvla.registry import family_of_checkpoint

        spec = family_of_checkpoint(source)
        model = meta_model(spec, spec.load("config").from_pretrained(local_checkpoint(source, weights=False)))
        return spec.of_model(model), model, []
    from hfvla.recipe import load_recipe
    from hfvla.registry import get_family

    recipe = load_recipe(source)
    spec = get_family(recipe.family)
    found = {_written(stage.lora): stage.lora for stage in recipe.stages if stage.lora is not None}
    model = meta_model(spec, base_config(recipe, spec))
    return spec.of_model(model, recipe.model.options), model, list(found.values())


def _written(lora: Lora) -> str:
    return lora.target if isinstance(lora.target, str) else ", ".join(lora.target)


def _groups_of(names: Sequence[str], model: nn.Module, groups: Mapping[str, ParameterGroup]) -> dict[str, str]:
    """Return the narrowest group of each layer's weight; "(other)" for none."""
    parameters = [plain_name(name) for name, _ in model.named_parameters()]
    members = {
        name: {key for key in parameters if any(fnmatchcase(key, pattern) for pattern in group.patterns)}
        for name, group in groups.items()
    }
    order = sorted(members, key=lambda name: len(members[name]))
    return {layer: next((g for g in order if f"{layer}.weight" in members[g]), "(other)") for layer in names}


def lora_layer_rows(model: nn.Module, groups: Mapping[str, ParameterGroup]) -> list[dict[str, Any]]:
    """Return one row a group and kind of layer; layers of one kind differ by their number only, written `*`.

    Args:
        model: the model; the meta device will do.
        groups: parameter groups by name.

    Returns:
        `list[dict]`: group, layers (name), count, type, shape of one weight and parameters of all.

    Raises:
        RecipeError: the model has no layer that can take an adapter.
    """
    names = lora_targets(model, groups, Lora(target=_ANY))
    owner, weights = _groups_of(names, model, groups), {plain_name(n): p for n, p in model.named_parameters()}
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for name in names:
        weight = weights[f"{name}.weight"]
        kind, shape = _NUMBER.sub("*", name), " x ".join(map(str, weight.shape))
        row = rows.setdefault(
            (owner[name], kind, shape),
            {
                "group": owner[name],
                "layers": kind,
                "count": 0,
                "type": type(model.get_submodule(name)).__name__,
                "weight": shape,
                "parameters": 0,
            },
        )
        row["count"] += 1
        row["parameters"] += weight.numel()
    return list(rows.values())


def lora_target_row(model: nn.Module, groups: Mapping[str, ParameterGroup], lora: Lora) -> dict[str, Any]:
    """Return what one `lora:` would put adapters on.

    Returns:
        `dict`: target, rank, layers, by_group ("language 96, vision 8") and adapter_parameters.

    Raises:
        RecipeError: see `hfvla.training.lora.injection.lora_targets`.
    """
    names = lora_targets(model, groups, lora)
    owners = list(_groups_of(names, model, groups).values())
    return {
        "target": _written(lora),
        "rank": lora.r,
        "layers": len(names),
        "by_group": ", ".join(f"{group} {owners.count(group)}" for group in dict.fromkeys(owners)),
        "adapter_parameters": count_lora_parameters(model, groups, lora),
    }
