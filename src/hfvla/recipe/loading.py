"""Reading a recipe from YAML, checking one built in Python, and saving and comparing resolved ones."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hfvla.errors import RecipeError
from hfvla.family import FamilySpec, resolve
from hfvla.paths import expand_user
from hfvla.recipe.checks import all_problems, build_options, source_entries
from hfvla.recipe.document import Document, read_document
from hfvla.recipe.overrides import apply_overrides
from hfvla.recipe.schema import Recipe
from hfvla.recipe.words import plain_problems

__all__ = ["check_recipe", "diff_recipes", "load_recipe", "load_resolved", "resolved_dict", "save_resolved"]


def _known_families(families: Mapping[str, FamilySpec] | None) -> Mapping[str, FamilySpec]:
    if families is not None:
        return families
    from hfvla.registry import available_families

    return available_families()


def load_recipe(
    path: str | Path, overrides: Sequence[str] | None = (), families: Mapping[str, FamilySpec] | None = None
) -> Recipe:
    """Read a recipe, apply overrides, and check all of it.

    A relative path among a source's options is left as it is when it exists from the current directory, and is
    taken from the recipe's folder when it exists only there; so is `args.deepspeed`. Missing files are the reader's
    matter, at run time.

    Args:
        path: YAML file.
        overrides: "key.path=value"; see `hfvla.recipe.overrides.apply_overrides`.
        families: known families by name; default: all of `hfvla.registry`.

    Raises:
        RecipeError: with every problem of the file and the overrides, each with its line.
    """
    if not isinstance(path, str | Path):
        raise RecipeError("no recipe's file", where="load_recipe(path=...)", got=str(type(path)), expected="a path")
    overrides = () if overrides is None else overrides
    if isinstance(overrides, str | Mapping) or not all(isinstance(one, str) for one in overrides):
        raise RecipeError(
            "overrides are a list",
            where="load_recipe(overrides=...)",
            got=overrides,
            expected='["key.path=value", ...]',
        )
    path = Path(expand_user(str(path)))
    document = read_document(path)
    failed = apply_overrides(document, overrides)
    _load_plugins(document.data, path.parent)
    families = _known_families(families)
    document.data.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).lstrip("._-") or "run")
    _find_deepspeed(document.data, path.parent)
    problems = document.problems + all_problems(document.data, families)
    _raise(document, problems, failed)
    spec = families[document.data["family"]]
    _find_paths(document.data, spec, path.parent)
    return _with_facts(Recipe.model_validate(document.data), spec)


def _with_facts(recipe: Recipe, spec: FamilySpec) -> Recipe:
    """Return a recipe whose model config holds what its training data decides, under what the recipe says itself.

    Raises:
        RecipeError: the data says no such thing.
        DataError: what the data says cannot be read.
    """
    if not spec.has("from_data"):
        return recipe
    entries = [entry for stage in recipe.stages for entry in recipe.stage_sources(stage) if entry.weight > 0]
    built = [(entry.source, build_options(spec, entry.source, entry.options)) for entry in entries]
    found = spec.load("from_data")(recipe.model.options, built)
    config = _under(found, recipe.model.config)
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"config": config})}) if found else recipe


def _under(found: Any, given: Any) -> Any:
    """Return values with those that are given over them, mappings key by key."""
    if isinstance(found, dict) and isinstance(given, dict):
        return {**found, **{key: _under(found.get(key), value) for key, value in given.items()}}
    return given


def _load_plugins(tree: dict[str, Any], folder: Path) -> None:
    """Load what `plugins` names, and give its files their whole path; changes `tree`."""
    named = tree.get("plugins")
    if isinstance(named, list) and named and all(isinstance(name, str) for name in named):
        from hfvla.plugins import use_plugins

        whole = {name: str((folder / expand_user(name)).resolve()) for name in named if name.endswith(".py")}
        tree["plugins"] = [whole.get(name, name) for name in named]
        use_plugins(tree["plugins"], folder)


def _raise(document: Document, problems: list, failed: list[str]) -> None:
    try:
        document.raise_problems(problems)
    except RecipeError as error:
        raise RecipeError([*error.problems, *failed]) from None
    if failed:
        raise RecipeError(failed)


def _find_deepspeed(tree: dict[str, Any], folder: Path) -> None:
    """Point DeepSpeed configs that exist only beside the recipe at the recipe's folder; changes `tree`."""
    stages = tree.get("stages")
    for section in (tree, *(stages if isinstance(stages, list) else ())):
        args = section.get("args") if isinstance(section, dict) else None
        if isinstance(args, dict) and isinstance(args.get("deepspeed"), str):
            args["deepspeed"] = _find(expand_user(args["deepspeed"]), folder)


def _find_paths(tree: dict[str, Any], spec: FamilySpec, folder: Path) -> None:
    """Point path options that exist only beside the recipe at the recipe's folder; changes `tree`."""
    for _, entry, options in source_entries(tree):
        fields = resolve(spec.sources[entry["source"]].options).model_fields
        for key, value in options.items():
            if key in fields and _is_path(key, fields[key].annotation):
                entry[key] = [_find(v, folder) for v in value] if isinstance(value, list) else _find(value, folder)


def _is_path(key: str, annotation: Any) -> bool:
    return "Path" in str(annotation) or key == "path" or key.endswith(("_path", "_paths", "_dir", "_file", "_folder"))


def _find(value: Any, folder: Path) -> Any:
    # `os.path`, which takes a text of any length for a path that is not there.
    if not isinstance(value, str) or not value or Path(value).is_absolute() or os.path.exists(value):
        return value
    beside = folder / value
    return str(beside) if os.path.exists(beside) else value


def check_recipe(recipe: Recipe, families: Mapping[str, FamilySpec] | None = None) -> None:
    """Check a recipe that was built in Python as `load_recipe` checks a file.

    Raises:
        RecipeError: with every problem.
    """
    document = Document(resolved_dict(recipe))
    document.raise_problems(all_problems(document.data, _known_families(families)))


def resolved_dict(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe with all defaults filled in, as JSON-serialisable data."""
    return recipe.model_dump(mode="json", by_alias=True)


def save_resolved(recipe: Recipe, path: str | Path) -> Path:
    """Write a recipe with all defaults as JSON; `load_resolved` reads it back.

    Returns:
        `Path`: the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # a run may be killed in the middle
    temporary.write_text(json.dumps(resolved_dict(recipe), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def load_resolved(path: str | Path) -> Recipe:
    """Read a recipe that `save_resolved` wrote.

    Raises:
        RecipeError: no such file, not JSON, or not a recipe of this version.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such resolved recipe") from error
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read as a resolved recipe: {error}") from error
    document = Document(data, places={(): str(path)}, lines={(): 0})
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        document.raise_problems(plain_problems(error, Recipe))
        raise


def diff_recipes(first: Recipe, second: Recipe) -> list[str]:
    """Return what differs between two recipes, e.g. "stages.align.args.learning_rate: 0.0001 -> 5e-05"."""
    before, after = _flat(resolved_dict(first)), _flat(resolved_dict(second))
    lines = []
    for key in [*before, *(key for key in after if key not in before)]:
        old, new = before.get(key, "(not set)"), after.get(key, "(not set)")
        if old != new:
            lines.append(f"{key}: {old} -> {new}")
    orders = [[stage.name for stage in recipe.stages] for recipe in (first, second)]
    if orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]):
        lines.append(f"order of stages: {', '.join(orders[0])} -> {', '.join(orders[1])}")
    return lines


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return leaves by dotted path; items of a list of mappings go by their name or source."""
    if isinstance(value, dict) and value:
        items = list(value.items())
    elif isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        labels = [str(part.get("name") or part.get("source") or index) for index, part in enumerate(value)]
        unique = len(set(labels)) == len(labels)
        items = list(zip(labels if unique else map(str, range(len(value))), value, strict=True))
    else:
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, part in items:
        leaves.update(_flat(part, f"{prefix}.{key}" if prefix else str(key)))
    return leaves
