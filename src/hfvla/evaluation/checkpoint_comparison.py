"""Checkpoints scored on the same rows, and what lies between them: paired differences with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hfvla.errors import DataError, HfvlaError
from hfvla.evaluation.comparison import ScoredRun, compare_runs, row_values
from hfvla.evaluation.comparison_report import score_cell
from hfvla.evaluation.inspection import inspect_checkpoint
from hfvla.evaluation.run import evaluate_checkpoint
from hfvla.family import EvaluationResult, FamilySpec
from hfvla.outputs import claim_folder
from hfvla.registry import family_of_checkpoint

__all__ = ["compare_checkpoints"]


def compare_checkpoints(
    checkpoints: Sequence[str | Path],
    data: Mapping[str, Mapping[str, Any]],
    output_dir: str | Path,
    *,
    seed: int = 0,
    bootstrap_samples: int = 1000,
    **settings: Any,
) -> dict[str, Any]:
    """Score checkpoints on the same sets and compare each with the first, row by row.

    Every score of the rows (`scores` of a prediction) that all checkpoints have is compared. Each checkpoint's own
    report lies in <output_dir>/<name>; the result is written to comparison.json and comparison.md.

    Args:
        checkpoints: two or more folders, or hub ids; the others are compared with the first.
        data: sets by name, as for `evaluate_checkpoint`.
        output_dir: for results.
        seed: of generated data, shuffles and resamples.
        bootstrap_samples: resamples behind each interval.
        **settings: of `evaluate_checkpoint`: device, batch_size, max_generate, options.

    Returns:
        `dict`: "reference", "checkpoints" (folder, family, parameters, bytes, samples seen by name) and "sets": by
        set the "rows" and "metrics": {"metric", "lower_is_better", "scores", "differences": {name: {"value",
        "interval", "relative", "verdict"}}}.

    Raises:
        HfvlaError: fewer than two checkpoints, or a folder that holds something else.
        DataError: the rows of two checkpoints cannot be paired, or have no score in common.
    """
    if len(checkpoints) < 2:
        raise HfvlaError("a comparison needs two checkpoints", where="--checkpoint", got=len(checkpoints))
    names = _names(checkpoints)
    spec = [family_of_checkpoint(checkpoint) for checkpoint in checkpoints][0]  # all, before the first is scored
    folder = claim_folder(output_dir, "comparison")
    results = {
        name: evaluate_checkpoint(
            checkpoint, data, folder / name, seed=seed, bootstrap_samples=bootstrap_samples, **settings
        )
        for name, checkpoint in names.items()
    }
    found = {
        "reference": next(iter(names)),
        "checkpoints": {name: _facts(checkpoint) for name, checkpoint in names.items()},
        "sets": {
            each: _compared({name: one[each] for name, one in results.items()}, spec, seed, bootstrap_samples)
            for each in next(iter(results.values()))
        },
        "output_dir": str(folder),
    }
    (folder / "comparison.json").write_text(json.dumps(found, indent=2, default=str) + "\n", encoding="utf-8")
    (folder / "comparison.md").write_text(_markdown(found), encoding="utf-8")
    return found


def _names(checkpoints: Sequence[str | Path]) -> dict[str, str | Path]:
    """Return checkpoints by a short name: the run's for its `final`, else run and stage, else the folder's."""
    found: dict[str, str | Path] = {}
    for checkpoint in checkpoints:
        path = Path(checkpoint)
        parts = [path.parent.name, path.name] if (path.parent / "run.json").is_file() else [path.name]
        name = "-".join(part for part in parts if part not in ("final", "")) or "checkpoint"
        count = sum(known == name or known.startswith(f"{name}_") for known in found)
        found[f"{name}_{count + 1}" if count else name] = checkpoint
    return found


def _facts(checkpoint: str | Path) -> dict[str, Any]:
    told = inspect_checkpoint(checkpoint)
    stages = [stage["name"] for stage in told["run"].get("stages", ()) if stage.get("steps") is not None]
    weights = {key: told["weights"][key] for key in ("parameters", "bytes")}
    return {"checkpoint": str(checkpoint), "family": told["family"], **weights, "stages": stages}


def _compared(
    results: Mapping[str, EvaluationResult], spec: FamilySpec, seed: int, bootstrap_samples: int
) -> dict[str, Any]:
    runs = [_as_run(name, seed, result) for name, result in results.items()]
    shared = set.intersection(*(_scores(run) for run in runs))
    metrics = [name for name in results[runs[0].name].metrics if name in shared]
    if not metrics:
        raise DataError("the rows of the checkpoints have no score in common", got=[run.name for run in runs])
    found = compare_runs(
        runs, {name: name for name in metrics}, runs[0].name, bootstrap_samples=bootstrap_samples, seed=seed
    )
    for entry in found:
        lower = spec.metric(entry["metric"]).is_error
        entry["lower_is_better"] = lower
        before = entry["scores"][runs[0].name]["value"]
        for difference in entry["differences"].values():
            difference["relative"] = difference["value"] / abs(before) if before else None
            difference["verdict"] = _verdict(difference, lower)
    return {"rows": len(runs[0].rows), "metrics": found}


def _as_run(name: str, seed: int, result: EvaluationResult) -> ScoredRun:
    rows = {str(row["id"]): row for row in result.rows}
    if len(rows) < len(result.rows):
        raise DataError("two predictions have one id, so rows cannot be paired", where=name)
    return ScoredRun(name, seed, name, dict(result.metrics), rows)


def _scores(run: ScoredRun) -> set[str]:
    """Return the scores of the rows whose mean is what was reported."""
    found = set()
    for name, reported in run.metrics.items():
        try:
            values = [value for row in run.rows.values() for value in row_values(row, name)]
        except (TypeError, ValueError):  # a field of that name which is no number
            continue
        if values and abs(sum(values) / len(values) - reported) < 1e-6:
            found.add(name)
    return found


def _verdict(difference: Mapping[str, Any], lower_is_better: bool) -> str:
    low, high = difference["interval"] or (-math.inf, math.inf)
    if not (low > 0 or high < 0):
        return "no difference that these rows show"
    return "better" if (high < 0) == lower_is_better else "worse"


def _markdown(found: Mapping[str, Any]) -> str:
    reference, others = found["reference"], list(found["checkpoints"])[1:]
    lines = [f"# {' against '.join([*others, reference])}", ""]
    for name, part in found["sets"].items():
        lines += [f"## {name}: {part['rows']} rows", ""]
        head = [
            "score",
            reference,
            *(cell for one in others for cell in (one, f"{one} − {reference}", "relative", "")),
        ]
        lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
        for entry in part["metrics"]:
            cells = [entry["metric"].replace("_", " "), score_cell(entry["scores"][reference])]
            for one in others:
                own = entry["differences"][one]
                relative = "" if own["relative"] is None else f"{own['relative']:+.1%}"
                cells += [score_cell(entry["scores"][one]), score_cell(own, signed=True), relative, own["verdict"]]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    lines += ["In brackets 95 % bootstrap intervals: groups are resampled, differences are paired by row.", ""]
    lines += ["| checkpoint | parameters | MB | stages |", "| --- | --- | --- | --- |"]
    for name, facts in found["checkpoints"].items():
        lines.append(
            f"| {name} | {facts['parameters']:,} | {facts['bytes'] / 1e6:.1f} | {', '.join(facts['stages'])} |"
        )
    return "\n".join([*lines, ""])
