"""Spatial relations as an `evaluate` metric; the arithmetic is in `hfvla.metrics.spatial`."""

import datasets
import evaluate
import numpy as np

from hfvla.metrics.spatial import per_class_scores, spatial_scores

_DESCRIPTION = "Accuracy of left/centre/right and upper/middle/lower, with precision, recall and F1 of each class."
_INPUTS = """
Args:
    predictions: two class numbers a pair of objects: 0 left, 1 centre, 2 right; 0 upper, 1 middle, 2 lower.
    references: the same, as the boxes say.
"""


class Spatial(evaluate.Metric):
    """Scores of relations."""

    def _info(self) -> evaluate.MetricInfo:
        pair = datasets.List(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": pair, "references": pair}),
        )

    def _compute(self, predictions, references):
        """Return the scores; see `_INPUTS` for the arguments."""
        predicted, wanted = np.asarray(predictions), np.asarray(references)
        return {**spatial_scores(predicted, wanted), **per_class_scores(predicted, wanted)}
