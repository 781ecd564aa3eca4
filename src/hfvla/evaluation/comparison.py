"""Finished runs side by side: scores with intervals, and paired differences over the same resampled groups."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hfvla.errors import DataError
from hfvla.metrics.bootstrap import bootstrap_intervals

__all__ = ["ScoredRun", "compare_runs", "read_scored_run", "row_values", "samples_seen"]

_CLOSE = 1e-6


@dataclass(frozen=True)
class ScoredRun:
    """A finished run and its predictions on one set.

    Attributes:
        name: of the recipe in the comparison.
        seed: of the run.
        folder: of the run.
        metrics: scores as reported.
        rows: of predictions.jsonl, by id.
        stages: summaries of the stages.
        samples: training samples seen, over all stages.
    """

    name: str
    seed: int
    folder: str
    metrics: dict[str, Any]
    rows: dict[str, dict[str, Any]]
    stages: list[dict[str, Any]] = field(default_factory=list)
    samples: int = 0


def read_scored_run(name: str, seed: int, folder: str | Path, eval_set: str | None = None) -> ScoredRun:
    """Read a run folder.

    Args:
        name: what it is called in the comparison.
        seed: of the run.
        folder: with run.json, metrics.json and predictions.
        eval_set: evaluation set; None = the only one.

    Raises:
        DataError: the run has no scores, or not of that set; two predictions have one id.
    """
    folder = Path(folder)
    record, metrics = (_read_json(folder / name) for name in ("run.json", "metrics.json"))
    sets = list(record.get("evaluation") or {})
    chosen = eval_set or (sets[0] if len(sets) == 1 else None)
    if chosen not in sets:
        raise DataError(
            "name one evaluation set" if eval_set is None else "no such evaluation set",
            where=str(folder), got=eval_set, expected=f"set: one of {', '.join(sets) or 'none'}",
        )  # fmt: skip
    several = len(sets) > 1
    path = folder / (f"predictions_{chosen}.jsonl" if several else "predictions.jsonl")
    rows: dict[str, dict[str, Any]] = {}
    for row in _read_lines(path):
        if row["id"] in rows:
            raise DataError("two predictions have one id, so rows cannot be paired", where=str(path), got=row["id"])
        rows[row["id"]] = row
    if not rows:
        raise DataError("the run has no predictions", where=str(path))
    scores = metrics["sets"][chosen] if several else metrics
    return ScoredRun(name, seed, str(folder), scores, rows, record["stages"], samples_seen(record))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("the run is not finished: no scores", where=str(path), fix=f"{error}") from error


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        # Line feeds alone end a line: str.splitlines cuts at U+2028, which a task's text may hold.
        return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError("predictions cannot be read", where=str(path), fix=f"{error}") from error


def samples_seen(record: Mapping[str, Any]) -> int:
    """Return how many training samples a run has seen, over its stages; a sample seen twice counts twice.

    Args:
        record: content of run.json.
    """
    recipe, total = record["recipe"], 0
    settings = {stage["name"]: {**recipe["args"], **stage["args"]} for stage in recipe["stages"]}
    for stage in record["stages"]:
        args = settings[stage["name"]]
        batch = args.get("per_device_train_batch_size", 8) * args.get("gradient_accumulation_steps", 1)
        steps = stage["steps"] * batch * record.get("processes", 1)
        rows = stage["rows"]["train"]  # none where they are streamed
        total += steps if rows is None else min(steps, round(stage["epochs"] * rows))  # the last batch may be smaller
    return total


def compare_runs(
    runs: Sequence[ScoredRun],
    metrics: Mapping[str, str | Sequence[str]],
    reference: str,
    *,
    bootstrap_samples: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Compare runs by metrics.

    With several seeds the rows of all of them are pooled. Groups are resampled by name, with the rows of all runs and
    seeds: so a difference is paired, and the interval tells how far it depends on the rows that were drawn.

    Args:
        runs: one or more a recipe, the same seeds for each.
        metrics: by shown name, the score of the rows or several, whose mean it is.
        reference: recipe that the others are subtracted from.
        bootstrap_samples: resamples; 0 for no intervals.
        seed: of the resamples.

    Returns:
        `list[dict]`: a metric each: {"metric", "scores": {recipe: {"value", "interval", "by_seed"}}, "differences":
        {recipe: {"value", "interval", "relative" (to the reference's score; None where that is 0)}}}.

    Raises:
        DataError: rows cannot be paired, or do not have the score.
    """
    names = list(dict.fromkeys(run.name for run in runs))
    _check_paired(runs)
    fields = list(dict.fromkeys(part for parts in metrics.values() for part in _listed(parts)))
    groups = sorted({_group(row) for run in runs for row in run.rows.values()})
    place = {group: number for number, group in enumerate(groups)}
    sums = {(run.name, run.seed, part): _sums(run, part, place) for run in runs for part in fields}
    _check_counts(runs, fields, sums)
    pooled = {
        f"{name}\n{part}": np.sum([sums[run.name, run.seed, part] for run in runs if run.name == name], axis=0)
        for name in names
        for part in fields
    }

    def scores(**sample: np.ndarray) -> dict[str, float]:
        found = {}
        for name in names:
            for shown, parts in metrics.items():
                found[f"{name}\n{shown}"] = _mean([sample[f"{name}\n{part}"] for part in _listed(parts)])
        for name in names:
            if name != reference:
                for shown in metrics:
                    found[f"-\n{name}\n{shown}"] = found[f"{name}\n{shown}"] - found[f"{reference}\n{shown}"]
        return found

    values = scores(**pooled)
    bounds = bootstrap_intervals(scores, pooled, groups, bootstrap_samples, seed) if bootstrap_samples else {}
    return [
        {
            "metric": shown,
            "scores": {
                name: {
                    **_entry(f"{name}\n{shown}", values, bounds),
                    "by_seed": _by_seed(runs, name, shown, _listed(parts), sums),
                }
                for name in names
            },
            "differences": {
                name: _difference(name, reference, shown, values, bounds) for name in names if name != reference
            },
        }
        for shown, parts in metrics.items()
    ]


def _listed(parts: str | Sequence[str]) -> list[str]:
    return [parts] if isinstance(parts, str) else list(parts)


def _entry(key: str, values: Mapping[str, float], bounds: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    return {"value": values[key], "interval": list(bounds[key]) if key in bounds else None}


def _difference(
    name: str, reference: str, shown: str, values: Mapping[str, float], bounds: Mapping[str, tuple[float, float]]
) -> dict[str, Any]:
    found, before = _entry(f"-\n{name}\n{shown}", values, bounds), values[f"{reference}\n{shown}"]
    return {**found, "relative": found["value"] / abs(before) if before else None}


def _mean(parts: Sequence[np.ndarray]) -> float:
    """Return the mean over scores of sum / count; NaN where a score has no values (in a resample)."""
    totals = [part.sum(axis=0) for part in parts]
    if any(count == 0 for _, count in totals):
        return float("nan")
    return float(np.mean([total / count for total, count in totals]))


def _group(row: Mapping[str, Any]) -> str:
    return str(row.get("group") or row["id"])


def row_values(row: Mapping[str, Any], part: str) -> list[float]:
    """Return a row's values of a score: numbers of `scores`, else of the row itself."""
    value = (row.get("scores") or {}).get(part, row.get(part))
    if value is None:
        return []
    return [float(one) for one in (value if isinstance(value, list) else [value])]


def _sums(run: ScoredRun, part: str, place: Mapping[str, int]) -> np.ndarray:
    """Return [G, 2]: the sum of a score's values in each group, and how many there are.

    Raises:
        DataError: no row has the score, or their mean is not what the run reports under that name.
    """
    found = np.zeros((len(place), 2))
    for row in run.rows.values():
        try:
            values = row_values(row, part)
        except (TypeError, ValueError):
            raise DataError(
                f"'{part}' is no number", where=f"{run.folder}, row {row['id']}", got=row.get(part)
            ) from None
        found[place[_group(row)]] += sum(values), len(values)
    total, count = found.sum(axis=0)
    if not count:
        known = sorted({key for row in run.rows.values() for key in row.get("scores") or {}})
        raise DataError(f"no row has the score '{part}'", where=run.folder, expected=f"one of {', '.join(known)}")
    reported = run.metrics.get(part)
    if isinstance(reported, float) and abs(reported - total / count) > _CLOSE:
        raise DataError(
            f"the rows do not add up to the reported '{part}'",
            where=run.folder,
            got=float(total / count),
            expected=reported,
        )
    return found


def _by_seed(
    runs: Sequence[ScoredRun], name: str, shown: str, parts: Sequence[str], sums: Mapping[Any, np.ndarray]
) -> dict[str, float]:
    own = [run for run in runs if run.name == name]
    return {str(run.seed): _mean([sums[name, run.seed, part] for part in parts]) for run in own}


def _check_paired(runs: Sequence[ScoredRun]) -> None:
    """Check that runs of one seed have the same rows, in the same groups, and that all recipes have all seeds.

    Raises:
        DataError: naming the first row that differs.
    """
    first: dict[int, ScoredRun] = {}
    for run in runs:
        other = first.setdefault(run.seed, run)
        one, two = ({row_id: _group(row) for row_id, row in part.rows.items()} for part in (other, run))
        if one != two:
            row_id = min((set(one.items()) ^ set(two.items())), key=str)[0]
            raise DataError(
                "the runs were scored on different rows, so they cannot be paired",
                where=f"{other.folder} and {run.folder}",
                got=row_id,
                expected="the same ids and groups",
            )
    seeds: dict[str, set[int]] = {}
    for run in runs:
        seeds.setdefault(run.name, set()).add(run.seed)
    if len({tuple(sorted(own)) for own in seeds.values()}) > 1:
        raise DataError("the runs have different seeds", got={name: sorted(own) for name, own in seeds.items()})


def _check_counts(runs: Sequence[ScoredRun], fields: Sequence[str], sums: Mapping[Any, np.ndarray]) -> None:
    """Check that runs of one seed have equally many values of each score in each group.

    Raises:
        DataError: they have not: one was not asked something that the other was.
    """
    first: dict[int, ScoredRun] = {}
    for run in runs:
        other = first.setdefault(run.seed, run)
        for part in fields:
            one, two = sums[other.name, run.seed, part][:, 1], sums[run.name, run.seed, part][:, 1]
            if not np.array_equal(one, two):
                raise DataError(
                    f"one run has more values of '{part}' than the other, so they cannot be paired",
                    where=f"{other.folder} and {run.folder}",
                    got=f"{one.sum():.0f} and {two.sum():.0f}",
                )
