"""Rows of a recipe's sources: built once, split by group, mixed for each stage."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hfvla.data.processes import Meeting
from hfvla.data.rows.mixing import mix
from hfvla.data.rows.splits import grouped_split
from hfvla.data.sources.sharing import build_sources
from hfvla.errors import DataError, RecipeError, did_you_mean
from hfvla.family import FamilySpec, SourceData, resolve
from hfvla.recipe import EvalSourceRecipe, Recipe, SourceRecipe, Stage, build_options
from hfvla.training.stage.fingerprint import rows_fingerprint

__all__ = ["RecipeData", "StageRows", "build_source"]

logger = logging.getLogger(__name__)


def build_source(spec: FamilySpec, entry: EvalSourceRecipe, recipe: Recipe, where: str) -> SourceData:
    """Build one source of a recipe; its `max_bad_fraction` and seed hold where the source has such options."""
    options = build_options(spec, entry.source, entry.options, where=where)
    fields = type(options).model_fields
    if "max_bad_fraction" in fields and "max_bad_fraction" not in options.model_fields_set:
        options = options.model_copy(update={"max_bad_fraction": recipe.data.max_bad_fraction})
    return resolve(spec.source(entry.source).build)(options, seed=recipe.seed)


@dataclass
class StageRows:
    """The rows of one stage.

    Attributes:
        train: mixed training rows.
        validation: held-out rows of the same sources, or None.
    """

    train: Any
    validation: Any | None


@dataclass
class _Parts:
    train: Any
    validation: Any | None


@dataclass
class RecipeData:
    """All training sources of a recipe, each built once; a group held out in one source is held out of all.

    Args:
        spec: the family.
        recipe: the recipe.
        stages: the stages whose sources are built; default: all.
        meeting: of the processes that share the building; each builds every n-th source and reads the others.
    """

    spec: FamilySpec
    recipe: Recipe
    stages: Sequence[Stage] = ()
    meeting: Meeting | None = None
    census: dict[str, Any] = field(default_factory=dict)
    _parts: dict[str, _Parts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Build and split every source."""
        entries: dict[str, SourceRecipe] = {}
        for stage in self.stages or self.recipe.stages:
            for entry in self.recipe.stage_sources(stage):
                if entry.weight > 0:
                    entries.setdefault(_key(entry), entry)
        builders = {
            key: partial(build_source, self.spec, entry, self.recipe, f"data.train.{entry.label}")
            for key, entry in entries.items()
        }
        built = {}
        for key, data in build_sources(builders, self.meeting, "train").items():
            if not len(data.dataset):
                raise DataError("the source has no usable rows", where=f"data.train.{entries[key].label}")
            built[key] = data.dataset
            self.census[self._census_name(entries[key])] = data.census
        held_out = self._held_out([(entries[key].label, rows) for key, rows in built.items()])
        for key, rows in built.items():
            inside = [group in held_out for group in rows["group"]]
            validation = rows.select([i for i, held in enumerate(inside) if held]) if any(inside) else None
            self._parts[key] = _Parts(rows.select([i for i, held in enumerate(inside) if not held]), validation)

    def _census_name(self, entry: SourceRecipe) -> str:
        """Return the entry's label, numbered where stages call different sources by the same name."""
        names = [entry.label, *(f"{entry.label}_{number}" for number in range(2, len(self.census) + 3))]
        return next(name for name in names if name not in self.census)

    def _held_out(self, built: Sequence[tuple[str, Any]]) -> set[str]:
        """Return the groups held out of each source that validation takes rows from.

        Raises:
            RecipeError: `validation.sources` names a source that the recipe does not have.
        """
        validation = self.recipe.data.validation
        if not validation.fraction:
            return set()
        known = [entry.label for stage in self.recipe.stages for entry in self.recipe.stage_sources(stage)]
        for name in validation.sources or ():
            if name not in known:
                raise RecipeError(
                    f"no training source '{name}'. {did_you_mean(name, dict.fromkeys(known))}",
                    where="data.validation.sources",
                )
        held: set[str] = set()
        for label, rows in built:
            if validation.sources is None or label in validation.sources:
                groups = rows["group"]
                _, indices = grouped_split(groups, validation.fraction, self.recipe.seed)
                held.update(groups[int(index)] for index in indices)
        return held

    def stage_rows(self, stage: Stage) -> StageRows:
        """Return the mixed rows of one stage."""
        from datasets import concatenate_datasets

        entries = [entry for entry in self.recipe.stage_sources(stage) if entry.weight > 0]
        parts = [self._parts[_key(entry)] for entry in entries]
        wanted = self.recipe.data.validation.sources
        held = [
            part.validation
            for entry, part in zip(entries, parts, strict=True)
            if part.validation is not None and (wanted is None or entry.label in wanted)
        ]
        mixture = self.recipe.stage_mixture(stage)
        weights, sets = [entry.weight for entry in entries], [part.train for part in parts]
        train = mix(sets, weights, self.recipe.seed, mixture.kind, mixture.temperature, mixture.rows)
        return StageRows(train, concatenate_datasets(held) if held else None)

    def fingerprints(self) -> dict[str, dict[str, str]]:
        """Return a hash of each column of each source's rows, training and held out, in the order of the sources."""
        found: dict[str, dict[str, str]] = {}
        for number, (key, part) in enumerate(self._parts.items()):
            for kind, rows in (("train", part.train), ("validation", part.validation)):
                if rows is not None:
                    found[f"{json.loads(key)[0]} ({kind}, source {number + 1})"] = rows_fingerprint(rows) or {}
        return found

    def all_training_rows(self) -> Any:
        """Return the training rows of every source, each once (for tokenizers and baselines)."""
        return mix([part.train for part in self._parts.values()], [1.0] * len(self._parts), self.recipe.seed)


def _key(entry: SourceRecipe) -> str:
    return json.dumps([entry.source, entry.options], sort_keys=True, default=str)
