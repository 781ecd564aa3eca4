"""Plots of an evaluation as data; `hfvla.evaluation.plots` draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hfvla.data.pictures import data_uri, read_picture
from hfvla.family import Figure
from hfvla.metrics.calibration import reliability_bins
from hfvla.metrics.report_figures import mistakes_figure, roc_pr_figure
from hfvla.metrics.selection import top_one
from hfvla.models.ember_vlm.evaluation.scores import Choices

__all__ = ["chain_figure", "confusion_figure", "reliability_figure", "selection_figures", "selection_mistakes"]

_CHAIN_SCORES = {"top1_in_set": "Top-1 in set", "exact_match": "Exact match", "jaccard": "Jaccard"}


def confusion_figure(gold: np.ndarray, primary: np.ndarray, choices: Choices, robots: Sequence[str]) -> Figure:
    """Gold against top-1.

    Args:
        gold: [N, R] bool.
        primary: [N] index of the gold robot named first.
        choices: the model's.
        robots: the fleet.
    """
    top = choices.probabilities.argmax(axis=1)
    truth = np.where(gold[np.arange(len(gold)), top], top, primary)
    matrix = np.zeros((len(robots), len(robots)), dtype=int)
    np.add.at(matrix, (truth, top), 1)
    data = {
        "matrix": matrix.tolist(),
        "rows": list(robots),
        "columns": list(robots),
        "row_title": "Gold robot",
        "column_title": "Top-1 robot",
    }
    caption = (
        "Counts of rows. A top-1 robot anywhere in the gold set counts on the diagonal; otherwise the row stands at "
        "the gold robot named first."
    )
    return Figure("confusion", "confusion", "Confusion: gold against top-1", data, caption)


def radar_figure(metrics: Mapping[str, float], robots: Sequence[str]) -> Figure:
    """Precision, recall and F1 of each robot."""
    series = {kind.title(): [metrics[f"{kind}/{robot}"] for robot in robots] for kind in ("precision", "recall")}
    series["F1"] = [metrics[f"f1/{robot}"] for robot in robots]
    caption = "One axis a robot, 0 in the centre, 1 at the rim."
    return Figure("per_robot_radar", "radar", "Per robot", {"axes": list(robots), "series": series}, caption)


def reliability_figure(gold: np.ndarray, choices: Choices, metrics: Mapping[str, float]) -> Figure:
    """Confidence of the top-1 robot against how often it is in the gold set."""
    bins = {name: values.tolist() for name, values in reliability_bins(*top_one(gold, choices.probabilities)).items()}
    data = {"bins": bins, "ece": metrics["ece"], "mce": metrics["mce"]}
    caption = "Bars on the diagonal mean that a confidence of 0.8 is right 8 times in 10. Counts stand below."
    return Figure("reliability", "reliability", "Reliability of the top-1 confidence", data, caption)


def robot_bars_figure(
    metrics: Mapping[str, float],
    baselines: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, tuple[float, float]],
    robots: Sequence[str],
) -> Figure:
    """F1 of each robot, the model beside every baseline, with intervals."""
    series, errors = {}, {}
    for name, scores in {"model": metrics, **baselines}.items():
        prefix = "" if name == "model" else f"baselines/{name}/"
        series[name] = [scores[f"f1/{robot}"] for robot in robots]
        errors[name] = [intervals.get(f"{prefix}f1/{robot}") for robot in robots]
    counts = [f"{robot}\n(n={metrics[f'support/{robot}']:.0f})" for robot in robots]
    data = {"groups": counts, "series": series, "errors": errors, "ylabel": "F1", "ylim": [0, 1]}
    caption = "n: rows with the robot in the gold set. Whiskers: 95 % bootstrap intervals over tasks."
    return Figure("per_robot_f1", "bars", "F1 per robot against the baselines", data, caption)


def ablation_figure(ablations: Mapping[str, Mapping[str, float]]) -> Figure:
    """Top-1, exact match and Jaccard with picture or text taken away."""
    groups = [name for name in ablations if not name.startswith("scene_only/")]
    series = {label: [ablations[name][key] for name in groups] for key, label in _CHAIN_SCORES.items()}
    data = {"groups": [g.replace("_", " ") for g in groups], "series": series, "ylabel": "score", "ylim": [0, 1]}
    caption = "The same rows each time; image only: the task text is replaced by an empty one."
    return Figure("ablations", "bars", "What picture and text contribute", data, caption)


def chain_figure(metrics: Mapping[str, float]) -> Figure:
    """Compare the selection head with the decision that the model writes down, on the same rows."""
    names = {"head": "Selection head (no chain)", "written": "Written decision (chain)"}
    series = {label: [metrics[f"{name}/{key}"] for key in _CHAIN_SCORES] for name, label in names.items()}
    data = {"groups": list(_CHAIN_SCORES.values()), "series": series, "ylabel": "score", "ylim": [0, 1]}
    count = f"{metrics['written/n']:.0f}"
    caption = f"The same {count} rows with generated text. A chain without a decision counts as wrong."
    return Figure("chain_comparison", "bars", "With and without the chain of thought", data, caption)


def selection_figures(
    gold: np.ndarray,
    primary: np.ndarray,
    choices: Choices,
    metrics: Mapping[str, float],
    baselines: Mapping[str, Mapping[str, float]],
    ablations: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, tuple[float, float]],
    robots: Sequence[str],
) -> list[Figure]:
    """Return the figures that every evaluation with gold has, and that of the ablations if there are any."""
    figures = [
        robot_bars_figure(metrics, baselines, intervals, robots),
        confusion_figure(gold, primary, choices, robots),
        reliability_figure(gold, choices, metrics),
        radar_figure(metrics, robots),
    ]
    curves = roc_pr_figure(gold, choices.probabilities, robots, "ROC and precision-recall of each robot")
    figures += [curves] if curves is not None else []
    return figures + ([ablation_figure(ablations)] if ablations else [])


def selection_mistakes(rows: Any, gold: np.ndarray, choices: Choices, robots: Sequence[str]) -> Figure | None:
    """Return the rows whose wrong robots were the surest, with their pictures.

    Args:
        rows: N, with task, robots, image and id.
        gold: [N, R] bool.
        choices: the model's.
        robots: the fleet.
    """
    wrong = (gold != choices.predicted).any(axis=1)
    surest = np.where(gold, 1 - choices.probabilities, choices.probabilities).max(axis=1)  # of what is wrong

    def describe(number: int) -> dict[str, Any]:
        row, scores = rows[number], choices.probabilities[number]
        image, named = row["image"], choices.predicted[number]
        return {
            "title": row["task"],
            "image": None if image is None else data_uri(read_picture(image, row["id"])),
            "bars": {robot: float(score) for robot, score in zip(robots, scores, strict=True)},
            "facts": [
                ["Gold", ", ".join(row["robots"])],
                ["Chosen", ", ".join(robot for robot, chosen in zip(robots, named, strict=True) if chosen)],
            ],
        }  # fmt: skip

    return mistakes_figure(np.where(wrong, surest, 0.0), describe, "how sure the model was of what is wrong")
