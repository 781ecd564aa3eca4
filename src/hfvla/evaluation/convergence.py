"""How soon runs became good: training samples until the validation score came close to the reference's best."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hfvla.evaluation.comparison import samples_seen

__all__ = ["convergence", "validation_curve"]

SHARE = 0.95
"""Of the reference's best score that has to be reached."""


def validation_curve(record: Mapping[str, Any], folder: str | Path, metric: str) -> list[tuple[int, float]]:
    """Return (training samples seen so far, score) at each validation of a run, over its stages in their order.

    Args:
        record: content of run.json.
        folder: of the run, with logs/log_history.jsonl.
        metric: as logged, e.g. "eval_macro_f1".
    """
    try:
        lines = (Path(folder) / "logs" / "log_history.jsonl").read_text("utf-8").split("\n")
    except OSError:
        return []
    entries = [json.loads(line) for line in lines if line.strip()]
    curve, before = [], 0
    for stage in record["stages"]:
        samples = samples_seen({**record, "stages": [stage]})
        for entry in entries:
            value = entry.get(metric)
            if entry.get("stage") == stage["name"] and isinstance(value, int | float):
                curve.append((before + round(samples * entry["step"] / max(stage["steps"], 1)), float(value)))
        before += samples
    return curve


def convergence(
    curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]], reference: str, *, is_error: bool
) -> dict[str, Any] | None:
    """Compare how many samples runs needed.

    Args:
        curves: by recipe, a curve for each seed (`validation_curve`).
        reference: recipe whose best score, its mean over seeds, says what has to be reached.
        is_error: whether less is better.

    Returns:
        `dict`: "target", and by recipe "samples" (mean over seeds; None where one never got there) and "speed_up"
            (the reference's samples over its own; None likewise). None where a run has no such score.
    """
    if not all(curve for runs in curves.values() for curve in runs):
        return None
    tops = [(min if is_error else max)(value for _, value in curve) for curve in curves[reference]]
    top = sum(tops) / len(tops)
    if top <= 0:  # a share of it would be no approach
        return None
    target = top / SHARE if is_error else top * SHARE
    samples = {name: _mean([_first(curve, target, is_error) for curve in runs]) for name, runs in curves.items()}
    own = samples[reference]
    return {
        "target": target,
        "samples": samples,
        "speed_up": {name: own / count if own and count else None for name, count in samples.items()},
    }


def _first(curve: Sequence[tuple[int, float]], target: float, is_error: bool) -> int | None:
    """Return the samples at which a curve first reaches a value."""
    return next((seen for seen, value in curve if (value <= target if is_error else value >= target)), None)


def _mean(counts: Sequence[int | None]) -> float | None:
    known = [count for count in counts if count is not None]
    return sum(known) / len(known) if len(known) == len(counts) else None
