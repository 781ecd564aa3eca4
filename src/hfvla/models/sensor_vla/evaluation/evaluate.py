"""Evaluation of a sensor VLA: open loop in the robot's units, and closed loop in the data's simulator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hfvla.data.rows.columns import column
from hfvla.errors import DataError
from hfvla.family import EvaluationContext, EvaluationResult
from hfvla.metrics.actions import action_scores, hold_last, mean_action, skill
from hfvla.metrics.bootstrap import bootstrap_intervals
from hfvla.models.sensor_vla.batches import SensorVLACollator
from hfvla.models.sensor_vla.evaluation.ablation import donor_rows
from hfvla.models.sensor_vla.evaluation.closed_loop import run_closed_loop, simulator_facts
from hfvla.models.sensor_vla.evaluation.figures import open_loop_figures
from hfvla.models.sensor_vla.evaluation.predicting import ABLATIONS, NOT_FINITE, Chunks, count_option, predict_chunks

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.sensor_vla.modeling_sensor_vla import SensorVLAForActionPrediction

__all__ = ["evaluate"]

_INTERVALS = ("mse", "mae", "first_mse", "first_mae")


def evaluate(
    model: SensorVLAForActionPrediction, processor: ProcessorMixin, rows: Any, context: EvaluationContext
) -> EvaluationResult:
    """Compare predicted chunks with what was done, and run the policy in the simulator where that is asked for.

    Args:
        model: `SensorVLAForActionPrediction`.
        processor: its processor.
        rows: `datasets.Dataset` of `action_features`.
        context: seed, batch size, resamples, options (see `FAMILY.evaluation_options`) and the share of rows that may
            fail.

    Raises:
        DataError: no rows, too many that cannot be read, or a closed loop of data that has no simulator.
    """
    if not len(rows):
        raise DataError("there is nothing to evaluate", got="0 rows", fix="Check the evaluation source's options.")
    episodes = count_option(context, "closed_loop", 0)
    if episodes:
        simulator_facts(rows)  # refused before the work, not after it
    collator = SensorVLACollator(processor, model.config, training=False)
    chunks = predict_chunks(model, processor, collator, rows, context)
    result = EvaluationResult(metrics={"n": len(rows) - len(chunks.failures)})
    _refuse_if_too_bad(rows, chunks, context)
    facts = _Facts(processor, rows, np.isfinite(chunks.actions).all(axis=(1, 2)))
    result.metrics |= facts.scores(chunks.actions)
    result.metrics |= facts.by_sensor(chunks.actions)
    result.baselines = facts.baselines()
    for name, scores in result.baselines.items():
        if scores["mse"] > 0:  # where nothing moves, no skill is defined
            result.metrics[f"skill/{name}"] = skill(result.metrics["mse"], scores["mse"])
    if context.ablations:
        _ablate(result, model, processor, collator, rows, context, facts, chunks.failures)
    if episodes:
        run_closed_loop(result, model, processor, rows, context, episodes)
    # After what processes share: the others do not wait while one draws resamples.
    result.intervals |= facts.intervals(chunks.actions, context)
    figures = open_loop_figures(processor, facts.rows, chunks.actions[facts.usable], facts.target, facts.mask)
    result.figures = figures + result.figures
    result.rows = facts.prediction_rows(rows, chunks)
    result.notes.append(
        "Errors are in the robot's own units; means over channels mix units where these differ. The action before a "
        "chunk is what 'hold last' repeats; in the "
        f"{facts.without_previous} rows without one (an episode's first step) it is the mean action."
    )
    for number, reason in list(chunks.failures.items())[:3]:
        result.notes.append(f"Row {rows[number]['id']} has no prediction: {reason}")
    result.metrics["failures"] = len(chunks.failures)
    return result


def _refuse_if_too_bad(rows: Any, chunks: Chunks, context: EvaluationContext) -> None:
    share = len(chunks.failures) / len(rows)
    if share > context.max_bad_fraction:
        number, reason = next(iter(chunks.failures.items()))
        problem = "have no answer" if reason == NOT_FINITE else "cannot be read"
        raise DataError(
            f"{len(chunks.failures)} of {len(rows)} rows {problem}; the first: {reason}",
            where=str(rows[number]["id"]),
            expected=f"at most {context.max_bad_fraction:.1%}",
        )


def _ablate(
    result: EvaluationResult,
    model: SensorVLAForActionPrediction,
    processor: ProcessorMixin,
    collator: Any,
    rows: Any,
    context: EvaluationContext,
    facts: _Facts,
    failures: Mapping[int, str],
) -> None:
    names = list(ABLATIONS)
    if processor.sensor is None or not any(column(rows, "sensor")):
        names = [name for name in names if "sensor" not in name]
    elif not donor_rows(rows, context.seed, failures):  # one episode has nothing to exchange
        names.remove("shuffled_sensor")
    if not processor.state_dim:
        names.remove("without_state")
    for name in names:
        found = predict_chunks(model, processor, collator, rows, context, name, failures)  # type: ignore[arg-type]
        broken = set(found.failures) - set(failures)
        if broken:
            result.notes.append(f"{name.replace('_', ' ').capitalize()}: no scores, {found.failures[min(broken)]}.")
            continue
        result.ablations[name] = facts.scores(found.actions)
        result.notes.append(f"{name.replace('_', ' ').capitalize()}: {ABLATIONS[name]}.")
    having = np.array([bool(sensor) for sensor in column(rows, "sensor")])
    result.metrics["data/share_with_sensor"] = float(having.mean())


class _Facts:
    """What was done in the usable rows.

    Args:
        processor: for sizes and the training rows' mean action.
        rows: N rows.
        usable: [N] bool.
    """

    def __init__(self, processor: ProcessorMixin, rows: Any, usable: np.ndarray) -> None:
        self.processor, self.usable = processor, usable
        index = np.flatnonzero(usable)
        self.rows = [rows[int(number)] for number in index]
        self.target = np.asarray([row["actions"] for row in self.rows], dtype=np.float64)
        self.mask = np.asarray([row["action_mask"] for row in self.rows], dtype=bool)
        self.groups = [row["group"] for row in self.rows]
        self.names = processor.action["names"]
        self._mean = np.asarray(processor.normalizer("action").statistics.mean)
        # Each row tells it: looked up among the rows, it would be missing wherever these are thinned or filtered.
        before = [row["previous_action"] for row in self.rows]
        self.without_previous = sum(not len(one) for one in before)
        self.last = np.asarray([one if len(one) else self._mean for one in before], dtype=np.float64)

    def scores(self, actions: np.ndarray) -> dict[str, float]:
        found = actions[self.usable] if len(actions) == len(self.usable) else actions
        scores = action_scores(found, self.target, self.mask, self.names)
        return {name: value for name, value in scores.items() if name not in {"steps", "chunks"}}

    def by_sensor(self, actions: np.ndarray) -> dict[str, float]:
        """Return errors of the rows with a sensor and of those without one, where there are both."""
        having = np.array([bool(row["sensor"]) for row in self.rows], dtype=bool)
        if having.all() or not having.any():
            return {}
        found: dict[str, float] = {}
        for name, chosen in (("rows_with_sensor", having), ("rows_without_sensor", ~having)):
            scores = action_scores(actions[self.usable][chosen], self.target[chosen], self.mask[chosen])
            found |= {f"{name}/n": int(chosen.sum())}
            found |= {f"{name}/{score}": scores[score] for score in _INTERVALS if score in scores}
        return found

    def baselines(self) -> dict[str, dict[str, float]]:
        count, horizon = self.mask.shape
        return {
            "hold_last": self.scores(hold_last(self.last, horizon)),
            "mean_action": self.scores(mean_action(self._mean, count, horizon)),
        }

    def intervals(self, actions: np.ndarray, context: EvaluationContext) -> dict[str, tuple[float, float]]:
        def scores(predicted: np.ndarray, target: np.ndarray, mask: np.ndarray) -> Mapping[str, float]:
            found = action_scores(predicted, target, mask)
            return {name: found[name] for name in _INTERVALS if name in found}

        arrays = {"predicted": actions[self.usable], "target": self.target, "mask": self.mask}
        return bootstrap_intervals(scores, arrays, self.groups, context.bootstrap_samples, context.seed)

    def prediction_rows(self, rows: Any, chunks: Chunks) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for number in range(len(rows)):
            row, predicted = rows[number], chunks.actions[number]
            entry: dict[str, Any] = {"id": row["id"], "group": row["group"], "gold": row["actions"]}
            if number in chunks.failures:
                found.append({**entry, "prediction": None, "failed": chunks.failures[number]})
                continue
            valid = np.asarray(row["action_mask"], dtype=bool)
            error = np.square(predicted - np.asarray(row["actions"]))[valid].mean(axis=1)
            found.append({**entry, "prediction": predicted.tolist(), "scores": {"mse": error.tolist()}})
        return found
