"""Predicted boxes as an `evaluate` metric; the arithmetic is in `hfvla.metrics.boxes`."""

import datasets
import evaluate
import numpy as np

from hfvla.metrics.boxes import box_scores

_DESCRIPTION = "IoU, GIoU, L1 and the share of boxes with an IoU of at least 0.5 and 0.7."
_INPUTS = """
Args:
    predictions: four numbers a box: centre x, centre y, width, height, as shares of the image.
    references: the same, of the boxes that were to be found.
"""


class Boxes(evaluate.Metric):
    """Scores of boxes."""

    def _info(self) -> evaluate.MetricInfo:
        box = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": box, "references": box}),
        )

    def _compute(self, predictions, references):
        """Return the scores; see `_INPUTS` for the arguments."""
        return box_scores(np.asarray(predictions, dtype=float), np.asarray(references, dtype=float))
