"""experiment_summary.json: what a run cost and reached, stage by stage, in one small file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfvla.training.checkpoint.record import read_json, write_json

__all__ = ["experiment_summary", "write_summary"]

FILE = "experiment_summary.json"


def write_summary(output_dir: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write `<output_dir>/experiment_summary.json` and return its content."""
    summary = experiment_summary(output_dir, record)
    write_json(output_dir / FILE, summary)
    return summary


def experiment_summary(output_dir: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summary of a run.

    Args:
        output_dir: run folder; `<stage>/trainable.json` gives the trainable share of each phase.
        record: run.json's content.

    Returns:
        `dict`: "stages" (seconds, steps, samples, energy, trainable share by phase, scores, cache), "totals",
        "metrics" by evaluation set, "baselines", "versions", "hardware", "seed", "commit".
    """
    stages = [_stage(output_dir, stage) for stage in record["stages"]]
    recipe = record.get("recipe") or {}
    scored = record.get("evaluation") or {}
    return {
        "name": recipe.get("name"),
        "family": recipe.get("family"),
        "seed": record.get("seed"),
        "commit": record.get("commit"),
        "versions": record.get("versions"),
        "hardware": record.get("hardware"),
        "processes": record.get("processes"),
        "stages": stages,
        "totals": _totals(stages, record),
        "metrics": {name: results.get("metrics") for name, results in scored.items()},
        "baselines": {name: results.get("baselines") for name, results in scored.items()},
    }


def _stage(output_dir: Path, stage: Mapping[str, Any]) -> dict[str, Any]:
    result = {
        "name": stage["name"],
        "seconds": stage.get("seconds"),
        "steps": stage.get("steps"),
        "epochs": stage.get("epochs"),
        "samples": _samples(stage),
        "data_share": stage.get("data_share"),
        "energy": stage.get("energy"),
        "trainable": _shares(output_dir / stage["name"] / "trainable.json", stage),
        "scores": stage.get("scores") or {},
        "best_metric": stage.get("best_metric"),
        "best_step": stage.get("best_step"),
    }
    return {**result, "cache": stage["cache"]} if stage.get("cache") else result


def _samples(stage: Mapping[str, Any]) -> int:
    """Return the training samples that were seen; the last batch of an epoch may be a short one."""
    rows = (stage.get("rows") or {}).get("train", 0)
    if rows is None:  # streamed
        return (stage.get("steps") or 0) * stage.get("batch_size", 0)
    steps, epochs = stage.get("steps") or 0, stage.get("epochs") or 0.0
    whole = int(epochs + 1e-6)
    rest = steps - round(whole * steps / epochs) if epochs else 0
    return whole * rows + min(rest * stage.get("batch_size", 0), rows)


def _shares(file: Path, stage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return parameters, those that train, and their share, for each phase that adds something."""
    totals = [row for row in read_json(file, list) or [] if row["group"] == "total"]
    if not totals:
        totals = [{"parameters": stage.get("parameters"), "trainable": stage.get("trainable_parameters")}]
    found = []
    for row in totals:
        share = row["trainable"] / row["parameters"] if row["parameters"] else 0.0
        entry = {"phase": row.get("phase", 0), "parameters": row["parameters"], "trainable": row["trainable"]}
        found.append({**entry, "share": share})
    return found


def _totals(stages: list[dict[str, Any]], record: Mapping[str, Any]) -> dict[str, Any]:
    measured = [stage["energy"]["kwh"] for stage in stages if stage["energy"]]
    return {
        "seconds": record.get("seconds"),
        "training_seconds": sum(stage["seconds"] or 0.0 for stage in stages),
        "steps": sum(stage["steps"] or 0 for stage in stages),
        "samples": sum(stage["samples"] for stage in stages),
        "energy_kwh": sum(measured) if measured else None,
        "stages_without_energy": len(stages) - len(measured),
    }
