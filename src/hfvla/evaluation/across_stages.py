"""What a run's stages gave one after another: scores that come and go, energy, what each stage's parameters bought."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hfvla.family import Figure

__all__ = ["across_stages"]

_MOST_PANELS = 9
_COUNTS = ("n", "failures")
_START = "start"  # of `stage_scores`: before the first stage


def across_stages(stages: Sequence[Mapping[str, Any]], stage_scores: Mapping[str, Any] | None = None) -> list[Figure]:
    """Return figures that follow a run from its first stage to its last; none for a single stage.

    Args:
        stages: entries of run.json, each with its "log_history".
        stage_scores: of run.json: {set: {"start" or stage: {score: value}}}.
    """
    if len(stages) < 2:
        return []
    sets = {name: found for name, found in (stage_scores or {}).items() if len(found) > 1}
    figures = [_given_and_forgotten(name, found) for name, found in sets.items()]
    figures += [_energy(stages), _efficiency(stages, sets)]
    return [figure for figure in figures if figure is not None]


def _given_and_forgotten(name: str, found: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """One panel a score of a set, over the stages."""
    scores = [score for score in _scores(found) if "/" not in score][:_MOST_PANELS]
    names = list(found)
    panels = []
    for score in scores:
        points = [(number, found[stage].get(score)) for number, stage in enumerate(names)]
        kept = [(number, value) for number, value in points if isinstance(value, int | float) and math.isfinite(value)]
        line = {"x": [float(number) for number, _ in kept], "y": [float(value) for _, value in kept]}
        panels.append({"title": score.replace("_", " "), "xlabel": "stages done", "series": {name: line}})
    if not panels:
        return None
    done = [stage for stage in names if stage != _START]
    order = ", ".join(f"{number} {stage}" for number, stage in enumerate(done, 1))
    caption = f"On the same rows after each stage, before calibration: 0 before the first, {order}."
    return Figure(f"across_{name}", "curves", f"{name}: what each stage gave and forgot", {"panels": panels}, caption)


def _scores(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names of a set's scores that changed, in their order."""
    names = dict.fromkeys(score for scores in found.values() for score in scores if score not in _COUNTS)
    values = {name: [scores[name] for scores in found.values() if name in scores] for name in names}
    return [
        name
        for name, seen in values.items()
        if all(isinstance(value, int | float) for value in seen) and len(set(seen)) > 1
    ]


def _energy(stages: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Show energy, and CO2 where it is known, over the time of training, the stages one after another."""
    panels = []
    for title, key, total in (("energy, kWh", "energy_kwh", "kwh"), ("CO2, kg", "co2_kg", "co2_kg")):
        series: dict[str, dict[str, list[float]]] = {}
        hours = used = 0.0
        for stage in stages:
            name, seconds = str(stage.get("name", "")), float(stage.get("seconds") or 0.0)
            steps = max(int(stage.get("steps") or 0), 1)
            own = (stage.get("energy") or {}).get(total)
            if isinstance(own, int | float):
                points = [
                    (hours + seconds / 3600 * min(line.get("step", 0) / steps, 1.0), used + line[f"{name}/{key}"])
                    for line in stage.get("log_history") or ()
                    if isinstance(line.get(f"{name}/{key}"), int | float)
                ]
                points = [(hours, used), *points, (hours + seconds / 3600, used + own)]
                series[name] = {"x": [x for x, _ in points], "y": [y for _, y in points]}
                used += own
            hours += seconds / 3600
        if series:
            panels.append({"title": title, "xlabel": "hours of training", "series": series})
    if not panels:
        return None
    caption = "By CodeCarbon, of the whole machine; within a stage by steps, as if they took alike."
    return Figure("energy_timeline", "curves", "Energy from stage to stage", {"panels": panels}, caption)


def _efficiency(stages: Sequence[Mapping[str, Any]], sets: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """Show what each stage trained and took, and how far the first score of each set went with it."""
    columns = ["stage", "trained parameters", "share", "steps", "minutes", "Wh"]
    firsts = {name: scores[0] for name, found in sets.items() if (scores := _scores(found))}
    columns += [f"{name}: {score.replace('_', ' ')}" for name, score in firsts.items()]
    rows = []
    for stage in stages:
        trained, whole = stage.get("trainable_parameters"), stage.get("parameters")
        energy = (stage.get("energy") or {}).get("kwh")
        row = [
            stage.get("name", ""),
            f"{trained:,}" if isinstance(trained, int) else "",
            f"{trained / whole:.1%}" if isinstance(trained, int) and whole else "",
            stage.get("steps", ""),
            f"{float(stage['seconds']) / 60:.1f}" if stage.get("seconds") is not None else "",
            f"{1000 * energy:.2f}" if isinstance(energy, int | float) else "",
        ]
        rows.append([*row, *(_change(sets[name], str(stage.get("name")), score) for name, score in firsts.items())])
    if not any(row[1] for row in rows):
        return None
    data = {"columns": columns, "rows": rows}
    caption = "A set's column: its first score after the stage, and the change since the stage before."
    return Figure("parameter_efficiency", "table", "What each stage's parameters bought", data, caption)


def _change(found: Mapping[str, Mapping[str, Any]], stage: str, score: str) -> str:
    names = list(found)
    if stage not in names or score not in found[stage]:
        return ""
    value, place = found[stage][score], names.index(stage)
    before = found[names[place - 1]].get(score) if place else None
    return f"{value:.3f}" if before is None else f"{value:.3f} ({value - before:+.3f})"
