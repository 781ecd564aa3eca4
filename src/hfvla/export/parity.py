"""The same rows through two engines: how far their numbers lie apart, and whether they decide alike.

Rows are answered one by one, as a robot or a server would ask. Scores have bootstrap intervals over the rows; latency
is the median of a row after the first; memory is what the process grew by while the graphs were loaded and first run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hfvla.errors import HfvlaError
from hfvla.family import Answers, ExportPlan, Figure
from hfvla.metrics.bootstrap import bootstrap_intervals

__all__ = ["check_parity", "compare_engines", "parity_figure", "resident_bytes"]


def resident_bytes() -> int:
    """Return the memory of this process that lies in RAM."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def compare_engines(
    plan: ExportPlan,
    reference: Any,
    candidate: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    sizes: tuple[int, int],
    bootstrap_samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Answer rows with two engines and compare.

    Args:
        plan: of the family.
        reference: engine of the model as it is.
        candidate: engine of what was exported.
        rows: of the family, one or more.
        sizes: bytes of the weights of each.
        bootstrap_samples: resamples behind each interval.
        seed: of the resamples.

    Returns:
        `dict`: "rows"; "values": by name "max_difference", "mean_difference" and "largest" (of the reference);
        "decisions": share of rows decided alike; "differing": up to 5 row numbers; "engines": by name "scores" (mean,
        low, high), "bytes", "loaded_bytes" (None for the reference, which was loaded before), "row_ms".
    """
    first, _ = _answers(plan, reference, rows)
    second, grown = _answers(plan, candidate, rows)
    alike = [one == other for one, other in zip(first.decisions, second.decisions, strict=True)]
    engines = {}
    for engine, answers, size, memory in (
        (reference, first, sizes[0], None),
        (candidate, second, sizes[1], grown),
    ):
        engines[engine.name] = {
            "scores": _scores(answers, bootstrap_samples, seed),
            "bytes": size,
            "loaded_bytes": memory,
            "row_ms": {
                part: 1000 * float(np.median(list(times)[1:] or list(times))) for part, times in engine.seconds.items()
            },
        }
    return {
        "rows": len(rows),
        "values": {name: _apart(first.values[name], second.values[name]) for name in first.values},
        "decisions": float(np.mean(alike)) if alike else math.nan,
        "differing": [number for number, same in enumerate(alike) if not same][:5],
        "engines": engines,
    }


def _answers(plan: ExportPlan, engine: Any, rows: Sequence[Mapping[str, Any]]) -> tuple[Answers, int]:
    before = resident_bytes()
    plan.answer(engine, rows[:1])  # loads what is loaded at first use, and warms up
    grown = resident_bytes() - before
    engine.seconds.clear()
    return plan.answer(engine, rows), grown


def _apart(first: Sequence[Any], second: Sequence[Any]) -> dict[str, float]:
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(first, second, strict=True)]
    differences = [np.abs(a - b) for a, b in pairs]
    return {
        "max_difference": max((float(one.max()) for one in differences if one.size), default=0.0),
        "mean_difference": float(np.mean([one.mean() for one in differences if one.size])) if differences else 0.0,
        "largest": max((float(np.abs(np.asarray(one)).max()) for one in first if np.size(one)), default=0.0),
    }


def _scores(answers: Answers, samples: int, seed: int) -> dict[str, dict[str, float]]:
    found = {}
    for name, numbers in answers.scores.items():
        if len(numbers):
            values = np.asarray(numbers, np.float64)
            mean = lambda values: {"mean": float(values.mean())}  # noqa: E731
            groups = [str(number) for number in range(len(values))]
            intervals = bootstrap_intervals(mean, {"values": values}, groups, samples, seed)
            low, high = intervals.get("mean", (math.nan, math.nan))
            found[name] = {"mean": float(values.mean()), "low": low, "high": high}
    return found


def check_parity(found: Mapping[str, Any], plan: ExportPlan, bits: int, least: float, where: Path) -> None:
    """Refuse an export that answers otherwise.

    Args:
        found: of `compare_engines`.
        plan: its tolerances count with 32 bits.
        bits: of the export.
        least: share of rows that must be decided alike.
        where: for the message.

    Raises:
        HfvlaError: too few rows are decided alike, or numbers with 32 bits lie further apart than the plan allows.
    """
    broken = [name for name, entry in found["values"].items() if not math.isfinite(entry["max_difference"])]
    if broken:
        raise HfvlaError("the export gives numbers that are not finite", where=str(where), got=broken[0])
    if not found["decisions"] >= least:
        raise HfvlaError(
            "the export decides otherwise than the model",
            where=str(where),
            got=f"{found['decisions']:.2%} of {found['rows']} rows alike, with {bits} bits",
            expected=f"{least:.2%} or more",
            fix="Take more bits, --method static with rows of the task, or a lower --least.",
        )
    for name, allowed in plan.tolerance.items() if bits == 32 else ():
        away = found["values"][name]["max_difference"]
        if away > allowed:
            raise HfvlaError(
                "the export computes something else than the model", where=f"{where}: {name}",
                got=f"a difference of {away:.1e}", expected=f"at most {allowed:.1e}",
            )  # fmt: skip


def parity_figure(found: Mapping[str, Any]) -> Figure:
    """Return the table of a comparison, for the terminal and the report."""
    names = list(found["engines"])
    rows: list[list[str]] = []
    for metric in dict.fromkeys(name for one in found["engines"].values() for name in one["scores"]):
        cells = [found["engines"][name]["scores"].get(metric) for name in names]
        rows.append([metric, *(f"{c['mean']:.3f} ({c['low']:.3f} – {c['high']:.3f})" if c else "" for c in cells)])
    rows.append(["size, MB", *(f"{found['engines'][name]['bytes'] / 1e6:.1f}" for name in names)])
    grown = [found["engines"][name]["loaded_bytes"] for name in names]
    rows.append(["memory of loading, MB", *("" if one is None else f"{one / 1e6:.1f}" for one in grown)])
    for part in dict.fromkeys(part for one in found["engines"].values() for part in one["row_ms"]):
        rows.append(
            [f"{part}, ms", *(f"{found['engines'][name]['row_ms'].get(part, math.nan):.1f}" for name in names)]
        )
    for name, entry in found["values"].items():
        away = f"{entry['max_difference']:.2e} at most, {entry['mean_difference']:.2e} on average"
        rows.append([f"{name}: apart by", f"values up to {entry['largest']:.3g}", away])
    rows.append(["decided alike", "", f"{found['decisions']:.2%} of {found['rows']} rows"])
    caption = "The same rows through both engines, one by one; scores with 95 % bootstrap intervals over rows."
    return Figure("parity", "table", "Parity", {"columns": ["", *names], "rows": rows}, caption)
