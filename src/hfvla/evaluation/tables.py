"""The numbers of an evaluation as tables: names, intervals, and which value of a column is the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hfvla.family import EvaluationResult
from hfvla.metrics.catalog import COUNTS
from hfvla.registry import describe_metric

__all__ = [
    "Cell",
    "Table",
    "ablation_table",
    "census_table",
    "detail_tables",
    "headline_metrics",
    "headline_table",
    "is_best",
    "label",
    "lower_is_better",
    "number",
]


@dataclass(frozen=True)
class Cell:
    """One value of a table.

    Attributes:
        text: as shown.
        note: smaller text below, e.g. the interval.
        best: the best of its column.
        tone: "good", "bad" or "": whether a difference is surely above or below zero.
    """

    text: str
    note: str = ""
    best: bool = False
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """A titled table.

    Attributes:
        title: heading.
        columns: headings, the first for the row names.
        rows: (name, cells) pairs.
        caption: how to read it.
    """

    title: str
    columns: list[str]
    rows: list[tuple[str, list[Cell]]]
    caption: str = ""


def label(name: str) -> str:
    """Return the heading of a metric, baseline or ablation."""
    return describe_metric(name).heading


def lower_is_better(metric: str) -> bool:
    """Tell whether a metric is an error."""
    return describe_metric(metric).is_error


def number(value: float | None, metric: str = "") -> str:
    """Format a score with three decimals, a count without."""
    if value is None:
        return "–"
    part = metric.split("/")[0]
    is_count = part in COUNTS or part.startswith("n_by_")
    is_count |= metric.split("/")[-1] in {"n", "order_plans"}
    if is_count:
        return f"{value:.0f}"
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.01 else f"{value:.3g}"  # errors in metres are small


def _interval(bounds: Sequence[float] | None) -> str:
    return f"{bounds[0]:.2f} – {bounds[1]:.2f}" if bounds else ""


def is_best(value: float | None, others: Sequence[float | None], metric: str) -> bool:
    """Tell whether a value is the best of its column; a column with one value has no best."""
    known = [round(other, 6) for other in others if other is not None]
    if value is None or len(known) < 2 or metric in COUNTS:
        return False
    return round(value, 6) == (min(known) if lower_is_better(metric) else max(known))


def headline_metrics(result: EvaluationResult) -> list[str]:
    """Return the metrics without a "/" in their name, counts left out."""
    return [name for name in result.metrics if "/" not in name and name not in COUNTS]


def headline_table(result: EvaluationResult) -> Table:
    """Build the table of the model and every baseline, with intervals and paired differences."""
    metrics = headline_metrics(result)
    systems = {"model": result.metrics, **result.baselines}
    rows = []
    for name, scores in systems.items():
        prefix = "" if name == "model" else f"baselines/{name}/"
        cells = []
        for metric in metrics:
            column = [other.get(metric) for other in systems.values()]
            value, bounds = scores.get(metric), result.intervals.get(prefix + metric)
            cells.append(Cell(number(value), _interval(bounds), is_best(value, column, metric)))
        rows.append(("This model" if name == "model" else label(name), cells))
    for name in result.baselines:
        paired = {metric: result.intervals.get(f"difference/{name}/{metric}") for metric in metrics}
        if any(paired.values()):
            cells = [_difference(result, name, metric, paired[metric]) for metric in metrics]
            rows.append((f"Model − {label(name)}", cells))
    caption = f"{result.metrics.get('n', 0):.0f} rows."
    if result.intervals:
        caption += (
            " Below each value its 95 % bootstrap interval over tasks; differences are paired. Resampling raises "
            "calibration errors, so their intervals may lie above the value."
        )
    return Table("Scores", ["", *map(label, metrics)], rows, caption)


def _difference(result: EvaluationResult, name: str, metric: str, bounds: Sequence[float] | None) -> Cell:
    ours, theirs = result.metrics.get(metric), result.baselines[name].get(metric)
    if ours is None or theirs is None:
        return Cell("–")
    tone = ""
    if bounds and (bounds[0] > 0 or bounds[1] < 0):
        tone = "good" if (bounds[0] > 0) != lower_is_better(metric) else "bad"
    shown = f"{bounds[0]:+.2f} – {bounds[1]:+.2f}" if bounds else ""
    return Cell(f"{ours - theirs:+.3f}", shown, tone=tone)


def ablation_table(result: EvaluationResult) -> Table | None:
    """Build the table of the ablations, or None without any."""
    if not result.ablations:
        return None
    known = dict.fromkeys(key for scores in result.ablations.values() for key in scores if "/" not in key)
    metrics = [metric for metric in known if metric != "n"]
    rows = []
    for name, scores in result.ablations.items():
        rows.append(
            (label(name), [Cell(number(scores.get("n"), "n")), *(Cell(number(scores.get(m))) for m in metrics)])
        )
    return Table(
        "Ablations", ["", "rows", *map(label, metrics)], rows, "The same model with parts of its input replaced."
    )


def detail_tables(metrics: Mapping[str, float]) -> list[Table]:
    """Build tables of the metrics named "<part>/<name>"; parts with the same names share a table."""
    parts: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        part, slash, name = key.partition("/")
        if slash:
            parts.setdefault(part, {})[name] = value
    shared: dict[tuple[str, ...], list[str]] = {}
    for part, values in parts.items():
        shared.setdefault(tuple(sorted(values)), []).append(part)
    tables = []
    for group in shared.values():
        names = list(parts[group[0]])
        if len(group) == 1:
            cells = [Cell(number(parts[group[0]][name], name)) for name in names]
            tables.append(Table(label(group[0]), ["", *map(label, names)], [("This model", cells)]))
            continue
        rows = [(name, [Cell(number(parts[part][name], f"{part}/{name}")) for part in group]) for name in names]
        title = ", ".join(label(part) for part in group)
        shown = [(label(name) if describe_metric(name).label else name, cells) for name, cells in rows]
        tables.append(Table(title, ["", *map(label, group)], shown))
    return tables


def census_table(census: Mapping[str, Any]) -> Table | None:
    """Build the table of found, usable and rejected records, or None without a census."""
    if not census:
        return None
    rows = [(label(key), [Cell(_plain(census[key]))]) for key in census if key != "rejected"]
    for reason, entry in (census.get("rejected") or {}).items():
        count, first = (entry.get("count"), entry.get("first", "")) if isinstance(entry, Mapping) else (entry, "")
        rows.append((f"Rejected: {reason}", [Cell(str(count), f"first: {first}" if first else "")]))
    return Table("Records", ["", "count"], rows)


def _plain(value: Any) -> str:
    """Return a count, or counts by name, as words."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_plain(part)}" for key, part in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)
