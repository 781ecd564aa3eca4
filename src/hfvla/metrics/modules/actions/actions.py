"""Predicted action chunks as an `evaluate` metric; the arithmetic is in `hfvla.metrics.actions`."""

import datasets
import evaluate
import numpy as np

from hfvla.metrics.actions import action_scores, hold_last, mean_action, per_step_errors, skill

_DESCRIPTION = (
    "Squared and absolute error of action chunks in physical units: over all steps, of the first one, by channel and "
    "by step of the horizon, with Pearson's correlation, beside holding the last action and the mean action."
)
_INPUTS = """
Args:
    predictions: chunks of H actions of A channels, in physical units.
    references: the chunks that were done.
    masks (optional): H booleans a chunk, False at steps past the episode's end; default: all valid.
    names (list of str, optional): of the A channels; default: their numbers.
    last_actions (optional): the action before each chunk, A numbers, for the baseline that holds it.
    train_mean (list of float, optional): mean action of the training split, for the baseline that always does it.
"""


class Actions(evaluate.Metric):
    """Scores of action chunks."""

    def _info(self) -> evaluate.MetricInfo:
        chunk = datasets.List(datasets.List(datasets.Value("float64")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": chunk, "references": chunk}),
        )

    def _compute(self, predictions, references, masks=None, names=None, last_actions=None, train_mean=None):
        """Return the scores; see `_INPUTS` for the arguments."""
        predicted, target = np.asarray(predictions, dtype=float), np.asarray(references, dtype=float)
        mask = np.ones(target.shape[:2], dtype=bool) if masks is None else np.asarray(masks, dtype=bool)
        scores = action_scores(predicted, target, mask, names)
        steps = per_step_errors(predicted, target, mask)
        for name in ("mse", "mae"):
            for step in np.flatnonzero(steps["count"]):
                scores[f"step_{name}/{step}"] = float(steps[name][step])
        baselines = {}
        if last_actions is not None:
            baselines["hold_last"] = hold_last(np.asarray(last_actions, dtype=float), target.shape[1])
        if train_mean is not None:
            baselines["mean_action"] = mean_action(np.asarray(train_mean, dtype=float), *target.shape[:2])
        for name, baseline in baselines.items():
            found = action_scores(baseline, target, mask, names)
            scores |= {f"{name}/mse": found["mse"], f"{name}/mae": found["mae"]}
            if found["mse"] > 0:
                scores[f"skill/{name}"] = skill(scores["mse"], found["mse"])
        return scores
