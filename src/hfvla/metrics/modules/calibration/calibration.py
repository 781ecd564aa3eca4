"""Calibration errors as an `evaluate` metric; the arithmetic is in `hfvla.metrics.calibration`."""

import datasets
import evaluate
import numpy as np

from hfvla.metrics.calibration import calibration_scores

_DESCRIPTION = "Expected and maximum calibration error over equal-width bins, and ECE over equal-mass bins."
_INPUTS = """
Args:
    predictions: confidence in [0, 1] a row.
    references: 1 where the prediction was right, else 0.
    bins (int): default 15.
"""


class Calibration(evaluate.Metric):
    """Calibration of a confidence."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="Guo et al. 2017, On Calibration of Modern Neural Networks",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions, references, bins=15):
        """Return the scores; see `_INPUTS` for the arguments."""
        return calibration_scores(np.asarray(predictions, dtype=float), np.asarray(references).astype(bool), bins)
