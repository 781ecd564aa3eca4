"""The curriculum on real excerpts: overrides that say where a recipe's files lie, and the scores of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

SCORES: tuple[tuple[str, str, str], ...] = (  # evaluation set, its score, title
    ("captions", "loss", "caption loss"),
    ("captions", "cider", "CIDEr"),
    ("captions", "mean_recall", "mean recall"),
    ("questions", "exact_answer", "objects, yes or no"),
    ("boxes", "box_accuracy_50", "boxes at IoU 0.5"),
    ("boxes", "box_iou", "IoU of boxes"),
    ("words", "vqa_accuracy", "questions without pictures"),
)
BASELINES = ("unigram", "bigram", "most_frequent", "question_only", "nearest_picture", "chance")


def moved(recipe: Path, folders: Mapping[str, Path]) -> list[str]:
    """Return overrides that put other folders in the place of those at the beginning of a recipe's paths.

    Args:
        recipe: YAML file.
        folders: by what a path begins with in the recipe.
    """
    found = []
    for key, value in _leaves(yaml.safe_load(recipe.read_text(encoding="utf-8"))):
        path = value.removeprefix("local-dir:")
        for old, new in folders.items():
            if path == old or path.startswith(f"{old}/"):
                found.append(f"{key}={value.removesuffix(path)}{new}{path.removeprefix(old)}")
                break
    return found


def _leaves(part: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted keys, as overrides name them, and the texts there."""
    if isinstance(part, str):
        yield key, part
    children: Sequence[tuple[str, Any]] = ()
    if isinstance(part, dict):
        children = list(part.items())
    elif isinstance(part, list) and all(isinstance(one, dict) for one in part):
        children = [(one.get("name", one.get("source", "")), one) for one in part]
    for name, child in children:
        yield from _leaves(child, f"{key}.{name}" if key else name)


def of_run(run: Path) -> dict[str, dict[str, float]]:
    """Return scores by title, of the start, after each stage, shown grey pictures, and of every baseline.

    Args:
        run: output folder of `curriculum_real.yaml`.
    """
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    found: dict[str, dict[str, float]] = {}
    for set_name, score, title in SCORES:
        for stage, scores in record["stage_scores"][set_name].items():
            _put(found, f"after {stage}" if stage != "start" else "before training", title, scores.get(score))
        scored = metrics["sets"][set_name]
        _put(
            found,
            "the last, shown grey pictures",
            title,
            scored.get("ablations", {}).get("blank_image", {}).get(score),
        )
        for name in BASELINES:
            _put(found, name.replace("_", " "), title, scored["baselines"].get(name, {}).get(score))
    return found


def _put(found: dict[str, dict[str, float]], row: str, title: str, value: float | None) -> None:
    if value is not None:
        found.setdefault(row, {})[title] = float(value)
