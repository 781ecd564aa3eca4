"""Multi-robot plans as an `evaluate` metric; the arithmetic is in `hfvla.metrics.plan`."""

import datasets
import evaluate

from hfvla.metrics.plan import plan_scores

_DESCRIPTION = "Subtask assignment accuracy by best matching, and Spearman correlation of execution orders with ties."
_INPUTS = """
Args:
    predictions: a list of {subtask, robot, order} a plan; may be empty.
    references: the gold plans, at least one step each.
"""


class Plan(evaluate.Metric):
    """Scores of multi-robot plans."""

    def _info(self) -> evaluate.MetricInfo:
        steps = datasets.List(
            {
                "subtask": datasets.Value("string"),
                "robot": datasets.Value("string"),
                "order": datasets.Value("int64"),
            }
        )
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": steps, "references": steps}),
        )

    def _compute(self, predictions, references):
        """Return the scores; see `_INPUTS` for the arguments."""
        return plan_scores(references, predictions)
