"""Chains of thought as an `evaluate` metric; the arithmetic is in `hfvla.metrics.reasoning`."""

import datasets
import evaluate

from hfvla.data.samples.robots import ROBOTS
from hfvla.metrics.reasoning import reasoning_scores

_DESCRIPTION = "Four steps present, decision equal to the head's, task words covered, contradictions."
_INPUTS = """
Args:
    predictions: generated chain a row.
    references: {task, robots}: the task and the robots that the selection head chose.
    robots (list of str): the fleet; default the five robots of the data.
"""


class Reasoning(evaluate.Metric):
    """Scores of generated chains of thought."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "references": {
                        "task": datasets.Value("string"),
                        "robots": datasets.List(datasets.Value("string")),
                    },
                }
            ),
        )

    def _compute(self, predictions, references, robots=ROBOTS):
        """Return the scores; see `_INPUTS` for the arguments."""
        tasks, decisions = [row["task"] for row in references], [row["robots"] for row in references]
        return reasoning_scores(predictions, tasks, decisions, list(robots))
