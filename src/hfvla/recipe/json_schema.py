"""JSON schema of a recipe, for completion and checks in an editor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hfvla.errors import RecipeError, did_you_mean
from hfvla.family import FamilySpec, Source, resolve
from hfvla.recipe.lora_checks import LORA_GROUP
from hfvla.recipe.schema import Recipe, SourceRecipe

__all__ = ["recipe_json_schema"]


def recipe_json_schema(family: str | None = None, families: Mapping[str, FamilySpec] | None = None) -> dict[str, Any]:
    """Return the JSON schema of recipes, with the names that a family knows.

    Args:
        family: only recipes of this family; default: of any family, with the names of all.
        families: known families by name; default: all of `hfvla.registry`.

    Raises:
        RecipeError: no such family.
    """
    if families is None:
        from hfvla.registry import available_families

        families = available_families()
    if family is not None and family not in families:
        raise RecipeError(f"no model family '{family}'. {did_you_mean(family, families)}")
    chosen = [families[family]] if family is not None else list(families.values())
    schema = Recipe.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = f"hfvla recipe of family {family}" if family else "hfvla recipe"
    schema["properties"]["family"]["enum"] = [spec.name for spec in chosen]
    _name_groups_and_losses(schema["$defs"], chosen)
    _name_sources(schema["$defs"], chosen)
    return schema


def _name_groups_and_losses(definitions: dict[str, Any], families: list[FamilySpec]) -> None:
    stage, phase = definitions["Stage"]["properties"], definitions["Phase"]["properties"]
    groups = sorted({group for spec in families for group in spec.groups})
    layered = sorted({name for spec in families for name, group in spec.groups.items() if group.layers})
    losses = sorted({loss for spec in families for loss in spec.losses})
    metrics = sorted({f"eval_{name}" for spec in families for name in spec.metric_names})
    expressions: list[dict[str, Any]] = [{"enum": groups}, {"const": LORA_GROUP}]
    if layered:
        expressions.append({"pattern": rf"^({'|'.join(layered)})\.(last|first)\([1-9][0-9]*\)$"})
    stage["train"].update(items={"type": "string", "anyOf": expressions}, minItems=1, uniqueItems=True)
    stage["learning_rates"]["propertyNames"] = {"anyOf": expressions}
    stage["losses"].update(propertyNames={"enum": losses}, minProperties=1)
    phase["add"].update(items={"type": "string", "anyOf": expressions}, uniqueItems=True)
    phase["learning_rates"]["propertyNames"] = {"anyOf": expressions}
    phase["losses"]["propertyNames"] = {"enum": losses}
    stage["keep_best"]["examples"] = [*metrics, "eval_loss", *(f"eval_loss_{loss}" for loss in losses)]


def _name_sources(definitions: dict[str, Any], families: list[FamilySpec]) -> None:
    """Replace the open source definitions by one closed variant for each source of each family."""
    mixture = SourceRecipe.model_json_schema(by_alias=True)["properties"]
    trained, evaluated = [], []
    for spec in families:
        for name, source in spec.sources.items():
            variant, nested = _source_variant(name, source, f"{spec.name}.{name}")
            definitions.update(nested)
            evaluated.append(variant)
            extra = {key: mixture[key] for key in ("name", "weight", "losses")}
            trained.append({**variant, "properties": {**variant["properties"], **extra}})
    if trained:
        for name, variants in (("SourceRecipe", trained), ("EvalSourceRecipe", evaluated)):
            description = definitions[name].get("description")  # its docstring, which `python -OO` takes away
            definitions[name] = {**({"description": description} if description else {}), "anyOf": variants}


def _source_variant(name: str, source: Source, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schema of one source's entry, and the definitions it refers to, renamed to be unique."""
    template = f"#/$defs/{prefix}.{{model}}"
    options = resolve(source.options).model_json_schema(by_alias=True, ref_template=template)
    nested = {f"{prefix}.{key}": value for key, value in options.pop("$defs", {}).items()}
    variant = {
        "type": "object",
        "description": source.description or options.get("description", ""),
        "properties": {"source": {"const": name}, **options.get("properties", {})},
        "required": ["source", *options.get("required", [])],
        "additionalProperties": False,
    }
    return variant, nested
