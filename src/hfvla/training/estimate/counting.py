"""How many samples an epoch of each stage has: told, counted in the data, or assumed where the data is not here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hfvla.data.rows.mixing import is_stream, mixture_counts
from hfvla.errors import DataError
from hfvla.family import FamilySpec, resolve
from hfvla.recipe import Recipe, SourceRecipe, Stage, build_options
from hfvla.training.run.preflight import check_rows, check_stream
from hfvla.training.stage.data import build_source
from hfvla.training.stage.phases import loss_terms

__all__ = ["ASSUMED_ROWS", "Counter", "term_shares"]

_DEFAULT_BATCH = 8  # TrainingArguments' own

ASSUMED_ROWS = 1000
"""Rows of a source whose data is not on this disk, where nobody says how many there are."""


class Counter:
    """Counts the samples of stages.

    Args:
        recipe: the recipe.
        spec: its family.
        samples: of an epoch of every stage, in place of counting.

    Attributes:
        assumed (`dict[str, str]`): why the rows of a source are assumed, by its label.
    """

    def __init__(self, recipe: Recipe, spec: FamilySpec, samples: int | None = None) -> None:
        self.recipe, self.spec, self.samples = recipe, spec, samples
        self.assumed: dict[str, str] = {}
        self._counts: dict[str, int | None] = {}

    def mixture(self, stage: Stage) -> list[dict[str, Any]]:
        """Return of each source its rows, without what is held out, and the rows of an epoch and their share.

        Rows are None where they are streamed, or where nobody counted them.
        """
        held_out = (self.recipe.data.validation, self.recipe.data.test)
        entries = [entry for entry in self.recipe.stage_sources(stage) if entry.weight > 0]
        weights = [entry.weight for entry in entries]
        whole = [None if self.samples is not None else self._rows(entry) for entry in entries]
        if None in whole:
            seen = [None if self.samples is None else round(self.samples * w / sum(weights)) for w in weights]
            shares = [weight / sum(weights) for weight in weights]
            return [_row(*row) for row in zip(entries, whole, seen, shares, strict=True)]
        kept = [
            1 - sum(part.fraction for part in held_out if part.sources is None or entry.label in part.sources)
            for entry in entries
        ]
        sizes = [round((size or 0) * part) for size, part in zip(whole, kept, strict=True)]
        mixture = self.recipe.stage_mixture(stage)
        counts = [round(size * weight) for size, weight in zip(sizes, weights, strict=True)]
        if all(sizes):
            counts = list(mixture_counts(sizes, weights, mixture.kind, mixture.temperature, mixture.rows))
        total = sum(counts) or 1
        shares = [count / total for count in counts]
        return [_row(*row) for row in zip(entries, sizes, counts, shares, strict=True)]

    def samples_of(self, stage: Stage, mixture: Sequence[Mapping[str, Any]]) -> int:
        """Return the samples of an epoch; of a stage on streams, those of its steps.

        Raises:
            RecipeError: the stage cannot train on such rows.
        """
        seen = [source["rows_per_epoch"] for source in mixture]
        if self.samples is None and None in seen:
            check_stream(self.recipe, stage)
            args = self.recipe.stage_args(stage)
            batch = int(args.get("per_device_train_batch_size", _DEFAULT_BATCH))
            return int(args["max_steps"]) * batch * int(args.get("gradient_accumulation_steps", 1))
        samples = sum(seen) if self.samples is None else self.samples
        check_rows(self.recipe, stage, samples)
        return samples

    def statements(self) -> list[str]:
        """Return what was assumed of the counts, a sentence each."""
        if self.samples is not None:
            return [f"{self.samples:,} samples an epoch, as --samples says"]
        return [
            f"{ASSUMED_ROWS:,} rows in {label}, whose data is not here ({why}); --samples N says otherwise"
            for label, why in self.assumed.items()
        ]

    def _rows(self, entry: SourceRecipe) -> int | None:
        """Return the rows of a source, asked of it where it can tell without building them; None where streamed."""
        source = self.spec.source(entry.source)
        where = f"data.train.{entry.label}"
        key = f"{entry.source}:{sorted(entry.options.items())}"
        if key not in self._counts:
            try:
                if source.count is not None:
                    options = build_options(self.spec, entry.source, entry.options, where=where)
                    self._counts[key] = resolve(source.count)(options)
                else:
                    rows = build_source(self.spec, entry, self.recipe, where).dataset
                    self._counts[key] = None if is_stream(rows) else len(rows)
            except (DataError, OSError) as error:
                if not _absent(error):
                    raise
                self._counts[key] = ASSUMED_ROWS
                self.assumed[entry.label] = _why(error)
        return self._counts[key]


def term_shares(recipe: Recipe, stage: Stage, mixture: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the share of a stage's rows that teach each loss term; {} where no source names its terms.

    Args:
        recipe: the recipe.
        stage: one of its stages.
        mixture: as `Counter.mixture` returned it.
    """
    entries = [entry for entry in recipe.stage_sources(stage) if entry.weight > 0]
    if not any(entry.losses for entry in entries):
        return {}
    parts = list(zip(entries, (source["share"] for source in mixture), strict=True))
    return {
        term: sum(share for entry, share in parts if not entry.losses or term in entry.losses)
        for term in loss_terms(stage)
    }


def _row(entry: SourceRecipe, rows: int | None, seen: int | None, share: float) -> dict[str, Any]:
    return {"source": entry.label, "weight": entry.weight, "rows": rows, "rows_per_epoch": seen, "share": share}


def _absent(error: Exception) -> bool:
    """Tell whether data is missing, and not wrong."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, FileNotFoundError):
            return True
        seen = seen.__cause__ or seen.__context__
    return any(
        word in str(error).lower() for word in ("no such", "does not exist", "not found", "no file", "is no folder")
    )


def _why(error: Exception) -> str:
    """Return what is missing, in a few words."""
    return str(error).split("; got")[0].split(". ")[0][:100]
