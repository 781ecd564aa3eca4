"""Trains the recipes of a comparison at equal budget, and sets their scores side by side."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hfvla.errors import DataError
from hfvla.evaluation.comparison import ScoredRun, compare_runs, read_scored_run
from hfvla.evaluation.comparison_file import Comparison
from hfvla.evaluation.comparison_report import comparison_markdown
from hfvla.evaluation.convergence import convergence, validation_curve
from hfvla.outputs import claim_folder
from hfvla.paths import expand_user
from hfvla.recipe import Recipe, diff_recipes, load_recipe, load_resolved
from hfvla.registry import get_family
from hfvla.training.checkpoint.record import read_json, write_json
from hfvla.training.run.run import run_recipe

__all__ = ["run_comparison"]

logger = logging.getLogger(__name__)


def run_comparison(
    comparison: Comparison, overrides: Sequence[str] = (), output_dir: str | Path | None = None
) -> dict[str, Any]:
    """Train every recipe with every seed, and compare; a run that is finished already is used as it is.

    Runs lie in <output_dir>/<name>/seed_<seed>; the result is written to comparison.json and comparison.md.

    Args:
        comparison: what is compared.
        overrides: recipe values to change in all recipes, after those of the file.
        output_dir: default: the comparison's.

    Returns:
        `dict`: content of comparison.json: "reference", "seeds", "budget", "runs", "metrics", "convergence".

    Raises:
        RecipeError: a recipe is wrong, or a folder holds a run of another one.
        HfvlaError: the folder holds something else, or cannot be written.
        DataError: the runs saw unequally many samples, or their rows cannot be paired.
    """
    folder = Path(expand_user(str(output_dir or comparison.output_dir)))
    recipes = {
        (name, seed): load_recipe(run.recipe, [*comparison.overrides, *run.overrides, *overrides, f"seed={seed}"])
        for seed in comparison.seeds
        for name, run in comparison.runs.items()
    }  # all of them first: a mistake in the last must not cost the training of the others
    if _is_main():
        claim_folder(folder, "comparison", before_marks=partial(_is_old_comparison, comparison))
    runs = []
    for (name, seed), recipe in recipes.items():
        runs.append(_run(name, seed, recipe, folder / name / f"seed_{seed}", comparison.eval_set))
        _check_budget([run for run in runs if run.seed == seed], comparison)
    result = {
        "reference": comparison.reference,
        "seeds": comparison.seeds,
        "budget": _budget(runs),
        "runs": [_facts(run) for run in runs],
        "rows": {run.name: len(run.rows) for run in runs},
        "metrics": compare_runs(
            runs, comparison.metrics, comparison.reference, bootstrap_samples=comparison.bootstrap_samples
        ),
        "convergence": _convergence(runs, recipes, comparison.reference),
        "output_dir": str(folder),
    }
    if _is_main():
        write_json(folder / "comparison.json", result)
        (folder / "comparison.md").write_text(comparison_markdown(result), encoding="utf-8")
    return result


def _is_main() -> bool:
    from accelerate import PartialState

    return PartialState().is_main_process


def _is_old_comparison(comparison: Comparison, folder: Path) -> bool:
    """Return whether a folder without a mark is this comparison, begun before there were marks."""
    known = {*comparison.runs, "comparison.json", "comparison.md"}
    names = [path.name for path in folder.iterdir()]
    return set(names) <= known and all(
        seed.name.startswith("seed_")
        for name in names
        if (folder / name).is_dir()
        for seed in (folder / name).iterdir()
    )


def _run(name: str, seed: int, recipe: Recipe, folder: Path, eval_set: str | None) -> ScoredRun:
    if _finished(recipe, folder):
        logger.info("run '%s', seed %d, is finished; it is used as it is: %s", name, seed, folder)
    else:
        logger.info("run '%s', seed %d: %s", name, seed, folder)
        run_recipe(recipe, output_dir=folder)
    return read_scored_run(name, seed, folder, eval_set)


def _finished(recipe: Recipe, folder: Path) -> bool:
    record = read_json(folder / "run.json") or {}
    done = record.get("evaluation") and (folder / "metrics.json").is_file() and (folder / "recipe.json").is_file()
    if not done:
        return False
    changes = diff_recipes(load_resolved(folder / "recipe.json"), recipe)
    return all(line.startswith("output_dir:") for line in changes)


def _budget(runs: Sequence[ScoredRun]) -> dict[str, Any]:
    samples = {run.name: run.samples for run in runs}
    return {"samples_seen": samples, "largest_difference": max(samples.values()) / max(min(samples.values()), 1) - 1}


def _check_budget(runs: Sequence[ScoredRun], comparison: Comparison) -> None:
    """Refuse runs that saw unequally many training samples.

    Raises:
        DataError: with the numbers.
    """
    found = _budget(runs)
    logger.info("training samples seen: %s", ", ".join(f"{k} {v:,}" for k, v in found["samples_seen"].items()))
    if comparison.budget == "samples" and found["largest_difference"] > comparison.budget_tolerance:
        raise DataError(
            "the runs are not of equal budget",
            got=found["samples_seen"],
            expected=f"training samples seen that differ by at most {comparison.budget_tolerance:.0%}",
            fix="Change epochs in a recipe, or write `budget: any` to compare them all the same.",
        )


def _convergence(
    runs: Sequence[ScoredRun], recipes: Mapping[tuple[str, int], Recipe], reference: str
) -> dict[str, Any] | None:
    """Return how soon each recipe came near the reference's best validation score; None where they keep no one score.

    The score is what the last stage with `keep_best` of every recipe keeps.
    """
    kept = {next((stage.keep_best for stage in reversed(one.stages) if stage.keep_best), None)
            for one in recipes.values()}  # fmt: skip
    name = next(iter(kept)) if len(kept) == 1 else None
    if name is None:
        return None
    metric = name if name.startswith("eval_") else f"eval_{name}"
    curves: dict[str, list[list[tuple[int, float]]]] = {}
    for run in runs:
        record = read_json(Path(run.folder) / "run.json") or {}
        curves.setdefault(run.name, []).append(validation_curve(record, run.folder, metric))
    spec = get_family(recipes[reference, runs[0].seed].family)
    found = convergence(curves, reference, is_error=spec.metric(metric.removeprefix("eval_")).is_error)
    return None if found is None else {"metric": metric, **found}


def _facts(run: ScoredRun) -> dict[str, Any]:
    stages = run.stages
    return {
        "run": run.name,
        "seed": run.seed,
        "samples_seen": run.samples,
        "steps": sum(stage["steps"] for stage in stages),
        "seconds": sum(stage["seconds"] for stage in stages),
        "trainable_parameters": max(stage["trainable_parameters"] for stage in stages),
        "stages": [
            {
                "name": stage["name"],
                "epochs": stage["epochs"],
                "seconds_per_epoch": stage["seconds"] / max(stage["epochs"], 1e-9),
                "best_epoch": _best_epoch(stage),
                "trainable_share": stage["trainable_parameters"] / max(stage["parameters"], 1),
            }
            for stage in stages
        ],
        "folder": run.folder,
    }


def _best_epoch(stage: Mapping[str, Any]) -> float | None:
    """Return after how many epochs `keep_best` was best; None where a stage keeps its last weights."""
    if not stage.get("best_step"):
        return None
    return stage["best_step"] / max(stage["steps"], 1) * stage["epochs"]
