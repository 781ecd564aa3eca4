"""A comparison as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["comparison_markdown", "score_cell"]


def score_cell(entry: Mapping[str, Any], signed: bool = False) -> str:
    """Return a value with its interval, e.g. "0.512 [0.480, 0.540]"."""
    form = "{:+.3f}" if signed else "{:.3f}"
    text = form.format(entry["value"])
    if entry.get("interval"):
        text += " [" + ", ".join(form.format(bound) for bound in entry["interval"]) + "]"
    return text


def comparison_markdown(result: Mapping[str, Any]) -> str:
    """Return the tables of a comparison.

    Args:
        result: content of comparison.json.
    """
    names = list(result["budget"]["samples_seen"])
    others = [name for name in names if name != result["reference"]]
    seeds = ", ".join(map(str, result["seeds"]))
    lines = [
        f"# {' against '.join(names)}",
        "",
        f"Seeds {seeds}; {next(iter(result['rows'].values()))} rows a seed.",
        "",
    ]
    head = ["score", *names, *(cell for name in others for cell in (f"{name} − {result['reference']}", "relative"))]
    rows = [
        [
            entry["metric"].replace("_", " "),
            *(score_cell(entry["scores"][name]) for name in names),
            *(cell for name in others for cell in _difference(entry["differences"][name])),
        ]
        for entry in result["metrics"]
    ]
    lines += _table(head, rows)
    lines += ["", "In brackets 95 % bootstrap intervals: groups are resampled, differences are paired by row. They",
              "tell how far a score depends on the rows, not how far on the seed.", ""]  # fmt: skip
    if len(result["seeds"]) > 1:
        head = ["score by seed", *(f"{name}, {seed}" for name in names for seed in result["seeds"])]
        rows = [
            [entry["metric"].replace("_", " "), *(
                f"{entry['scores'][name]['by_seed'][str(seed)]:.3f}" for name in names for seed in result["seeds"]
            )]
            for entry in result["metrics"]
        ]  # fmt: skip
        lines += [*_table(head, rows), ""]
    lines += _convergence(result)
    head = ["run", "seed", "samples seen", "steps", "seconds", "stage", "epochs", "s / epoch", "best epoch", "trains"]
    rows = [
        [run["run"], str(run["seed"]), f"{run['samples_seen']:,}", f"{run['steps']:,}", f"{run['seconds']:.0f}",
         stage["name"], f"{stage['epochs']:g}", f"{stage['seconds_per_epoch']:.1f}",
         "" if stage["best_epoch"] is None else f"{stage['best_epoch']:.1f}", f"{stage['trainable_share']:.1%}"]
        for run in result["runs"]
        for stage in run["stages"]
    ]  # fmt: skip
    return "\n".join([*lines, *_table(head, rows), ""])


def _difference(entry: Mapping[str, Any]) -> tuple[str, str]:
    relative = entry.get("relative")
    return score_cell(entry, signed=True), "" if relative is None else f"{relative:+.1%}"


def _convergence(result: Mapping[str, Any]) -> list[str]:
    """Return how many samples each recipe needed for the reference's best validation score, nearly."""
    found = result.get("convergence")
    if not found:
        return []
    rows = [
        [name, "never" if count is None else f"{count:,.0f}",
         "" if found["speed_up"][name] is None else f"{found['speed_up'][name]:.2f} x"]
        for name, count in found["samples"].items()
    ]  # fmt: skip
    head = ["recipe", f"samples until {found['metric']} {found['target']:.3g}", "speed-up"]
    told = f"95 % of {result['reference']}'s best validation score; validations come by epoch, so this is no finer."
    return [*_table(head, rows), "", told, ""]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(row) + " |" for row in cells]
