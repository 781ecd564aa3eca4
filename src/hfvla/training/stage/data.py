"""Rows of a recipe's sources: built once, split by group, mixed for each stage."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from hfvla.data.inspection.finding import ReadData
from hfvla.data.processes import Meeting
from hfvla.data.rows.columns import column
from hfvla.data.rows.learned_terms import with_learned_terms
from hfvla.data.rows.mixing import is_stream, mix
from hfvla.data.rows.splits import held_out_groups, rows_of_groups
from hfvla.data.rows.streaming import StreamedMixture
from hfvla.data.sources.sharing import build_sources
from hfvla.errors import DataError, RecipeError, did_you_mean
from hfvla.family import FamilySpec, SourceData, resolve
from hfvla.recipe import EvalSourceRecipe, Recipe, SourceRecipe, Stage, build_options
from hfvla.registry import get_family
from hfvla.training.stage.fingerprint import rows_fingerprint

__all__ = ["RecipeData", "StageRows", "build_source", "recipe_sets"]

logger = logging.getLogger(__name__)

_FIRST_ROWS = 2000  # of a stream, for a model that is built from its training rows


def build_source(spec: FamilySpec, entry: EvalSourceRecipe, recipe: Recipe, where: str) -> SourceData:
    """Build one source of a recipe; its `max_bad_fraction` and seed hold where the source has such options."""
    options = build_options(spec, entry.source, entry.options, where=where)
    fields = type(options).model_fields
    if "max_bad_fraction" in fields and "max_bad_fraction" not in options.model_fields_set:
        options = options.model_copy(update={"max_bad_fraction": recipe.data.max_bad_fraction})
    return resolve(spec.source(entry.source).build)(options, seed=recipe.seed)


def recipe_sets(recipe: Recipe) -> tuple[list[ReadData], list[ReadData]]:
    """Return what a recipe trains on, all stages together, and the sets that it is scored on; streams are left out.

    Raises:
        DataError: a source cannot be read.
    """
    spec, seen = get_family(recipe.family), set()
    trained, scored = [], []
    for entry in (entry for stage in recipe.stages for entry in recipe.stage_sources(stage)):
        if _key(entry) not in seen and entry.weight > 0:
            seen.add(_key(entry))
            data = build_source(spec, entry, recipe, f"data.train.{entry.label}")
            trained.append(ReadData(f"{recipe.name}: {entry.label}", entry.source, data))
    for name, one in recipe.data.eval.items():
        data = build_source(spec, one, recipe, f"data.eval.{name}")
        scored.append(ReadData(f"{recipe.name}: eval {name}", one.source, data))
    whole = [[found for found in part if not is_stream(found.data.dataset)] for part in (trained, scored)]
    return whole[0], whole[1]


@dataclass
class StageRows:
    """The rows of one stage.

    Attributes:
        train: mixed training rows; a `StreamedMixture` where a source is streamed.
        validation: held-out rows of the same sources, or None. Streams give none: their rows of groups that are held
            out elsewhere are left out.
    """

    train: Any
    validation: Any | None

    @property
    def streamed(self) -> bool:
        """Whether the training rows have no length."""
        return is_stream(self.train)

    def known(self) -> Any:
        """Return the training rows as a table; of a stream, the first ones."""
        from datasets import Dataset

        return Dataset.from_list(list(islice(self.train, _FIRST_ROWS))) if self.streamed else self.train

    @property
    def counts(self) -> dict[str, int | None]:
        """Rows of each part; None for streams."""
        return {
            "train": None if self.streamed else len(self.train),
            "validation": len(self.validation) if self.validation is not None else 0,
        }


@dataclass
class _Parts:
    train: Any
    validation: Any | None
    test: Any | None = None


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
            if not is_stream(data.dataset) and not len(data.dataset):
                raise DataError("the source has no usable rows", where=f"data.train.{entries[key].label}")
            built[key] = data.dataset
            self.census[self._census_name(entries[key])] = data.census
        tables = {key: rows for key, rows in built.items() if not is_stream(rows)}
        labelled, rules = [(entries[key].label, rows) for key, rows in tables.items()], self.recipe.data
        tested = self._held_out(labelled, rules.test, "test")
        held_out = self._held_out(labelled, rules.validation, "validation", tested)
        for key, rows in built.items():
            if is_stream(rows):
                self._parts[key] = _Parts(_without(rows, held_out | tested), None)
                continue
            groups = column(rows, "group")
            validation, test = (rows_of_groups(rows, chosen) for chosen in (held_out, tested))
            kept = [i for i, group in enumerate(groups) if group not in held_out and group not in tested]
            wanted = rules.test.sources is None or entries[key].label in rules.test.sources
            self._parts[key] = _Parts(rows.select(kept), validation, test if wanted else None)

    def _census_name(self, entry: SourceRecipe) -> str:
        """Return the entry's label, numbered where stages call different sources by the same name."""
        names = [entry.label, *(f"{entry.label}_{number}" for number in range(2, len(self.census) + 3))]
        return next(name for name in names if name not in self.census)

    def _held_out(
        self, built: Sequence[tuple[str, Any]], rule: Any, name: str, taken: Collection[str] = ()
    ) -> set[str]:
        """Return the groups held out of each source that `data.<name>` takes rows from, `taken` ones apart.

        Raises:
            RecipeError: its `sources` name one that the recipe does not have.
            DataError: too few groups.
        """
        if not rule.fraction:
            return set()
        known = [entry.label for stage in self.recipe.stages for entry in self.recipe.stage_sources(stage)]
        for source in rule.sources or ():
            if source not in known:
                raise RecipeError(
                    f"no training source '{source}'. {did_you_mean(source, dict.fromkeys(known))}",
                    where=f"data.{name}.sources",
                )
        return held_out_groups(built, rule.fraction, rule.sources, self.recipe.seed, taken)

    def test_rows(self) -> Any | None:
        """Return the rows of all sources that are held out for `data.test`; None without any."""
        from datasets import concatenate_datasets

        found = [part.test for part in self._parts.values() if part.test is not None]
        return concatenate_datasets(found) if found else None

    def stage_rows(self, stage: Stage) -> StageRows:
        """Return the mixed rows of one stage."""
        from datasets import concatenate_datasets

        entries = [entry for entry in self.recipe.stage_sources(stage) if entry.weight > 0]
        parts = [self._parts[_key(entry)] for entry in entries]
        wanted = self.recipe.data.validation.sources
        held = [
            with_learned_terms(part.validation, entry.losses)
            for entry, part in zip(entries, parts, strict=True)
            if part.validation is not None and (wanted is None or entry.label in wanted)
        ]
        sets = {
            entry.label: with_learned_terms(part.train, entry.losses)
            for entry, part in zip(entries, parts, strict=True)
        }
        train = self._mixed(stage, sets, [entry.weight for entry in entries])
        return StageRows(train, concatenate_datasets(held) if held else None)

    def _mixed(self, stage: Stage, sets: dict[str, Any], weights: list[float]) -> Any:
        """Return the rows of an epoch; where one of the sets is streamed, a mixture without an end.

        Raises:
            RecipeError: streams have no size, and the mixture asks for one.
        """
        mixture = self.recipe.stage_mixture(stage)
        if not any(is_stream(rows) for rows in sets.values()):
            rows = list(sets.values())
            return mix(rows, weights, self.recipe.seed, mixture.kind, mixture.temperature, mixture.rows)
        if len(sets) > 1 and (mixture.kind != "fixed" or mixture.rows is not None):
            raise RecipeError(
                f"stage '{stage.name}': streamed sources have no size, so that weights can only be shares",
                where="data.mixture",
                got=f"kind '{mixture.kind}'" + (f", rows {mixture.rows}" if mixture.rows else ""),
                fix="Say `mixture: {kind: fixed}` and weights that are shares, or read the sources without streaming.",
            )
        return StreamedMixture(sets, weights, self.recipe.seed, at_end="repeat")

    def fingerprints(self) -> dict[str, dict[str, str]]:
        """Return a hash of each column of each source's rows, training and held out, in the order of the sources."""
        found: dict[str, dict[str, str]] = {}
        for number, (key, part) in enumerate(self._parts.items()):
            for kind, rows in (("train", part.train), ("validation", part.validation), ("test", part.test)):
                if rows is not None and not is_stream(rows):
                    found[f"{json.loads(key)[0]} ({kind}, source {number + 1})"] = rows_fingerprint(rows) or {}
        return found

    def all_training_rows(self) -> Any:
        """Return the training rows of every source that is no stream, each once (for tokenizers and baselines)."""
        tables = [part.train for part in self._parts.values() if not is_stream(part.train)]
        return mix(tables, [1.0] * len(tables), self.recipe.seed) if tables else None


def _without(rows: Any, groups: set[str]) -> Any:
    """Return a stream without the rows of some groups."""
    return rows.filter(lambda row: row["group"] not in groups) if groups else rows


def _key(entry: SourceRecipe) -> str:
    return json.dumps([entry.source, entry.options], sort_keys=True, default=str)
