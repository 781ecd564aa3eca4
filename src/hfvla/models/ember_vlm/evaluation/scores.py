"""Numbers of an evaluation: headline scores, text baselines and paired bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hfvla.data.rows.columns import column
from hfvla.errors import DataError, did_you_mean
from hfvla.family import EvaluationContext
from hfvla.metrics.baselines import BASELINES
from hfvla.metrics.bootstrap import bootstrap_intervals
from hfvla.metrics.calibration import calibration_scores, label_wise_ece
from hfvla.metrics.selection import per_robot_scores, predicted_sets, selection_scores, set_matrix, top_one

__all__ = ["Baselines", "Choices", "all_intervals", "gold_sets", "score_baselines", "selection_metrics"]


@dataclass(frozen=True)
class Choices:
    """What one system chose: probabilities [N, R] and the sets [N, R] bool that follow from its own threshold."""

    probabilities: np.ndarray
    predicted: np.ndarray

    @classmethod
    def at(cls, probabilities: np.ndarray, threshold: float) -> Choices:
        """Choose every robot at or above the threshold, and always the most probable one."""
        return cls(probabilities, predicted_sets(probabilities, threshold))

    def rows(self, index: np.ndarray) -> Choices:
        """Return the choices of some rows."""
        return Choices(self.probabilities[index], self.predicted[index])


@dataclass
class Baselines:
    """Fitted and applied text baselines.

    Attributes:
        choices: by name.
        notes: what a reader must know about how they were fitted.
    """

    choices: dict[str, Choices] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def gold_sets(rows: Any, robots: Sequence[str]) -> np.ndarray:
    """Return the gold sets [N, R] bool; a row without gold is all False.

    Raises:
        DataError: a row names a robot that is not in the model's fleet.
    """
    named = column(rows, "robots")
    for row_id, names in zip(column(rows, "id"), named, strict=True):
        for name in names or ():
            if name not in robots:
                hint = did_you_mean(name, robots)
                raise DataError("robot is not in the model's fleet", where=row_id, got=name, fix=hint)
    return set_matrix([names or () for names in named], robots)


def selection_metrics(gold: np.ndarray, choices: Choices, robots: Sequence[str]) -> dict[str, float]:
    """Return every selection and calibration score of labelled rows, and `n`."""
    return {
        "n": len(gold),
        **selection_scores(gold, choices.predicted, choices.probabilities),
        **calibration_scores(*top_one(gold, choices.probabilities)),
        "label_ece": label_wise_ece(choices.probabilities, gold),
        **per_robot_scores(gold, choices.predicted, robots),
    }


def _training_sets(rows: Any, train_rows: Any) -> tuple[dict[str, tuple[list[int], str]], int]:
    """Choose training rows by baseline name, leaving out tasks that are evaluated; count those left out."""
    evaluated_tasks, evaluated_sources = set(column(rows, "group")), set(column(rows, "source"))
    labelled = [index for index, robots in enumerate(column(train_rows, "robots")) if robots]
    groups, sources = column(train_rows, "group"), column(train_rows, "source")
    clean = [index for index in labelled if groups[index] not in evaluated_tasks]
    own = [index for index in clean if sources[index] in evaluated_sources]
    many = len({sources[index] for index in clean}) > 1
    sets = {"majority": (own or clean, "majority")}
    if own or not many:
        sets["tfidf_logreg"] = (own or clean, "tfidf_logreg")
    if many:
        sets["tfidf_logreg_all"] = (clean, "tfidf_logreg")
    return sets, len(labelled) - len(clean)


def score_baselines(rows: Any, context: EvaluationContext, robots: Sequence[str]) -> Baselines:
    """Fit the text baselines on the training rows and apply them.

    `majority` and `tfidf_logreg` take the training rows of the evaluated source; `tfidf_logreg_all` takes the rows of
    every source, where there are several. Training rows whose task is evaluated are left out.

    Args:
        rows: N labelled rows.
        context: with the training rows.
        robots: the fleet.
    """
    if context.train_rows is None:
        return Baselines(notes=["No training rows at hand, so there are no baselines."])
    result = Baselines()
    sets, left_out = _training_sets(rows, context.train_rows)
    if left_out:
        result.notes.append(
            f"{left_out} training rows share a task with the evaluated rows: the model may have seen these tasks; the "
            "baselines were fitted without them."
        )
    gold = gold_sets(context.train_rows, robots)
    texts, groups = column(context.train_rows, "task"), column(context.train_rows, "group")
    tasks = column(rows, "task")
    for name, (index, kind) in sets.items():
        if len({groups[row] for row in index}) < 2:
            result.notes.append(f"Baseline {name} left out: fewer than two training tasks.")
            continue
        chosen = [texts[row] for row in index], gold[index], [groups[row] for row in index]
        baseline = BASELINES[kind](*chosen, seed=context.seed)
        result.choices[name] = Choices.at(baseline.probabilities(tasks), baseline.threshold)
        result.notes.append(f"Baseline {name}: fitted on {len(index)} training rows.")
    return result


def all_intervals(
    gold: np.ndarray,
    systems: Mapping[str, Choices],
    robots: Sequence[str],
    groups: Sequence[str],
    context: EvaluationContext,
) -> dict[str, tuple[float, float]]:
    """Bootstrap every score of every system over the same resampled tasks.

    Args:
        gold: [N, R] bool.
        systems: choices by name; the model itself is "".
        robots: the fleet.
        groups: N task keys.
        context: seed and number of resamples.

    Returns:
        `dict`: (low, high) by metric for the model, by "baselines/<name>/<metric>" for the others, and by
        "difference/<name>/<metric>" for the model minus the other, paired.
    """
    arrays = {"gold": gold}
    for name, choices in systems.items():
        arrays[f"p_{name}"], arrays[f"q_{name}"] = choices.probabilities, choices.predicted

    def scores(**sample: np.ndarray) -> dict[str, float]:
        found: dict[str, dict[str, float]] = {
            name: selection_metrics(sample["gold"], Choices(sample[f"p_{name}"], sample[f"q_{name}"]), robots)
            for name in systems
        }
        ours, flat = found[""], dict(found[""])
        for name, values in found.items():
            if name:
                flat |= {f"baselines/{name}/{metric}": value for metric, value in values.items()}
                flat |= {f"difference/{name}/{metric}": ours[metric] - value for metric, value in values.items()}
        return flat

    intervals = bootstrap_intervals(scores, arrays, groups, context.bootstrap_samples, context.seed)
    return {
        name: bounds for name, bounds in intervals.items() if name.split("/")[-1] != "n" and "support/" not in name
    }
