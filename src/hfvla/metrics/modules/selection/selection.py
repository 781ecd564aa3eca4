"""Robot-set selection as an `evaluate` metric; the arithmetic is in `hfvla.metrics.selection`."""

import datasets
import evaluate
import numpy as np

from hfvla.metrics.selection import per_robot_scores, predicted_sets, selection_scores

_DESCRIPTION = "Top-1, exact match, Jaccard, macro/weighted F1 and per-robot precision/recall/F1 of robot sets."
_INPUTS = """
Args:
    predictions: list of R probabilities a row.
    references: list of R zeros and ones a row.
    threshold (float): a robot is chosen at or above it; the most probable one always. Default 0.5.
    robots (list of str, optional): names of the R robots, for per-robot scores.
"""


class Selection(evaluate.Metric):
    """Scores of predicted robot sets."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("float64")),
                    "references": datasets.List(datasets.Value("int64")),
                }
            ),
        )

    def _compute(self, predictions, references, threshold=0.5, robots=None):
        """Return the scores; see `_INPUTS` for the arguments."""
        probabilities, gold = np.asarray(predictions, dtype=float), np.asarray(references).astype(bool)
        predicted = predicted_sets(probabilities, threshold)
        scores = selection_scores(gold, predicted, probabilities)
        return {**scores, **(per_robot_scores(gold, predicted, robots) if robots else {})}
