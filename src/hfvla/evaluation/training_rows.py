"""Rebuilds what a checkpoint's run trained on and what it held out, from its recipe.json."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfvla.data.rows.columns import column
from hfvla.data.rows.mixing import is_stream
from hfvla.data.rows.splits import held_out_groups, rows_of_groups
from hfvla.errors import DataError, RecipeError
from hfvla.family import FamilySpec, resolve

if TYPE_CHECKING:
    from hfvla.recipe import Recipe

__all__ = ["HELD_OUT", "held_out_rows", "load_training_rows"]

logger = logging.getLogger(__name__)

HELD_OUT = ("validation", "test")
"""Sets that are no source: what the run of a checkpoint held out of its training data."""


def load_training_rows(checkpoint: str | Path, spec: FamilySpec) -> tuple[Any | None, list[str]]:
    """Rebuild the rows that a checkpoint was trained on; its validation rows are among them, its test rows are not.

    Args:
        checkpoint: folder; its own recipe.json or that of the folder beside it (a run folder) is read.
        spec: the family.

    Returns:
        `tuple`: a dataset or None, and notes on what could not be rebuilt.
    """
    from datasets import concatenate_datasets

    from hfvla.recipe import load_resolved

    file = _recipe_file(checkpoint)
    if file is None:
        return None, ["The checkpoint has no recipe.json, so its training rows are unknown."]
    notes: list[str] = []
    try:
        recipe = load_resolved(file)
    except RecipeError as error:
        return None, [f"recipe.json cannot be read, so the training rows are unknown: {error}"]
    found: list[tuple[str, Any]] = []
    for entry in _entries(recipe):
        try:
            rows = _rows(entry, recipe, spec)
            if is_stream(rows):
                notes.append(f"Training source {entry.label} is streamed, baselines do without it.")
            else:
                found.append((entry.label, rows))
        except (DataError, RecipeError, OSError) as error:
            notes.append(f"Training source {entry.label} cannot be rebuilt, baselines do without it: {error}")
            logger.warning("%s", notes[-1])
    tested = held_out_groups(found, recipe.data.test.fraction, recipe.data.test.sources, recipe.seed)
    kept = [rows_of_groups(rows, set(column(rows, "group")) - tested) if tested else rows for _, rows in found]
    left = [rows for rows in kept if rows is not None]
    return (concatenate_datasets(left) if left else None), notes


def held_out_rows(checkpoint: str | Path, spec: FamilySpec, name: str) -> tuple[Any, Any]:
    """Rebuild what a checkpoint's run held out of its training data, and what it trained on.

    Args:
        checkpoint: folder; its own recipe.json or that of its run is read.
        spec: the family.
        name: "validation" (of the stage that it is of, else of the last one) or "test".

    Returns:
        `tuple`: rows held out, and training rows without any that were held out.

    Raises:
        DataError: no recipe.json, or nothing was held out; a source cannot be read.
        RecipeError: the recipe cannot be read.
    """
    from datasets import concatenate_datasets

    from hfvla.recipe import load_resolved

    file = _recipe_file(checkpoint)
    if file is None:
        raise DataError(
            "the checkpoint has no recipe.json, which says what was held out", where=str(checkpoint),
            fix="Name a source: --data SOURCE=FILE.",
        )  # fmt: skip
    recipe = load_resolved(file)
    built = {_key(entry): (entry.label, _rows(entry, recipe, spec)) for entry in _entries(recipe)}
    tables = {key: one for key, one in built.items() if not is_stream(one[1])}
    data, sets = recipe.data, list(tables.values())
    tested = held_out_groups(sets, data.test.fraction, data.test.sources, recipe.seed)
    held = held_out_groups(sets, data.validation.fraction, data.validation.sources, recipe.seed, tested)
    rule, chosen = (data.test, tested) if name == "test" else (data.validation, held)
    stage = _stage_of(checkpoint, recipe)
    wanted = list(tables) if name == "test" else [_key(entry) for entry in recipe.stage_sources(stage)]
    parts = [
        rows_of_groups(tables[key][1], chosen)
        for key in wanted
        if key in tables and (rule.sources is None or tables[key][0] in rule.sources)
    ]
    rows = [part for part in parts if part is not None]
    if not rows:
        raise DataError("the run held nothing out", where=f"data.{name} of {file}", fix="Name a source in its place.")
    trained = [rows_of_groups(part, set(part["group"]) - tested - held) for _, part in sets]
    left = [part for part in trained if part is not None]
    return concatenate_datasets(rows), concatenate_datasets(left) if left else None


def _recipe_file(checkpoint: str | Path) -> Path | None:
    """Return the recipe.json of a checkpoint: its own, or that of the run that it lies in."""
    folder = Path(checkpoint)
    places = [folder, folder.parent]
    if folder.parent.name == "checkpoints":  # <run>/<stage>/checkpoints/checkpoint-N
        places.append(folder.parent.parent.parent)
    return next((place / "recipe.json" for place in places if (place / "recipe.json").is_file()), None)


def _stage_of(checkpoint: str | Path, recipe: Recipe) -> Any:
    """Return the stage whose folder a checkpoint lies in, else the last one."""
    stages = {stage.name: stage for stage in recipe.stages}
    return next((stages[part] for part in Path(checkpoint).absolute().parts[-3:] if part in stages), recipe.stages[-1])


def _key(entry: Any) -> str:
    return json.dumps([entry.source, entry.options], sort_keys=True, default=str)


def _entries(recipe: Recipe) -> list[Any]:
    """Return the training sources of all stages, each once."""
    entries = [*recipe.data.train, *(e for stage in recipe.stages for e in recipe.stage_sources(stage))]
    return list({_key(entry): entry for entry in entries if entry.weight > 0}.values())


def _rows(entry: Any, recipe: Recipe, spec: FamilySpec) -> Any:
    from hfvla.recipe import build_options

    source = spec.source(entry.source)
    options = build_options(spec, entry.source, entry.options, where="recipe.json: data.train")
    if "max_bad_fraction" in type(options).model_fields and "max_bad_fraction" not in options.model_fields_set:
        options = options.model_copy(update={"max_bad_fraction": recipe.data.max_bad_fraction})
    return resolve(source.build)(options, seed=recipe.seed).dataset
