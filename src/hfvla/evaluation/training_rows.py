"""Rebuilds the rows that a checkpoint was trained on, for baselines that need them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from hfvla.data.rows.mixing import is_stream
from hfvla.errors import DataError, RecipeError
from hfvla.family import FamilySpec, resolve

__all__ = ["load_training_rows"]

logger = logging.getLogger(__name__)


def load_training_rows(checkpoint: str | Path, spec: FamilySpec) -> tuple[Any | None, list[str]]:
    """Rebuild the rows that a checkpoint was trained on, from its recipe.json; its validation rows are among them.

    Args:
        checkpoint: folder; its own recipe.json or that of the folder beside it (a run folder) is read.
        spec: the family.

    Returns:
        `tuple`: a dataset or None, and notes on what could not be rebuilt.
    """
    from datasets import concatenate_datasets

    from hfvla.recipe import build_options, load_resolved

    folder = Path(checkpoint)
    files = [path for path in (folder / "recipe.json", folder.parent / "recipe.json") if path.is_file()]
    if not files:
        return None, ["The checkpoint has no recipe.json, so its training rows are unknown."]
    notes: list[str] = []
    try:
        recipe = load_resolved(files[0])
    except RecipeError as error:
        return None, [f"recipe.json cannot be read, so the training rows are unknown: {error}"]
    sources = {}
    for entry in [*recipe.data.train, *(e for stage in recipe.stages for e in recipe.stage_sources(stage))]:
        sources[json.dumps([entry.source, entry.options], sort_keys=True, default=str)] = entry
    found = []
    for entry in sources.values():
        try:
            source = spec.source(entry.source)
            options = build_options(spec, entry.source, entry.options, where="recipe.json: data.train")
            if "max_bad_fraction" in type(options).model_fields and "max_bad_fraction" not in options.model_fields_set:
                options = options.model_copy(update={"max_bad_fraction": recipe.data.max_bad_fraction})
            rows = resolve(source.build)(options, seed=recipe.seed).dataset
            if is_stream(rows):
                notes.append(f"Training source {entry.label} is streamed, baselines do without it.")
            else:
                found.append(rows)
        except (DataError, RecipeError, OSError) as error:
            notes.append(f"Training source {entry.label} cannot be rebuilt, baselines do without it: {error}")
            logger.warning("%s", notes[-1])
    return (concatenate_datasets(found) if found else None), notes
