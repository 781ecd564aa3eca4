"""Multiple-choice answers as an `evaluate` metric; the arithmetic is in `hfvla.metrics.qa`."""

import datasets
import evaluate

from hfvla.data.choices import LETTERS
from hfvla.metrics.qa import accuracy_scores, answer_shares, grouped_scores

_DESCRIPTION = "Accuracy of multiple-choice answers beside chance: overall, by letter, number of choices and kind."
_INPUTS = """
Args:
    predictions: index of the answered choice; -1 when there was no answer.
    references: index of the right choice.
    counts (list of int): choices of each question; default: 4 each.
    kinds (list of str, optional): kind of each question, for scores by kind.
    languages (list of str, optional): language of each question.
"""


class QuestionAnswering(evaluate.Metric):
    """Scores of multiple-choice answers."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions, references, counts=None, kinds=None, languages=None):
        """Return the scores; see `_INPUTS` for the arguments."""
        counts = [len(LETTERS)] * len(references) if counts is None else counts
        by = {name: values for name, values in {"kind": kinds, "language": languages}.items() if values is not None}
        shares = answer_shares(predictions, counts)
        return {
            **accuracy_scores(references, predictions, counts),
            **grouped_scores(references, predictions, counts, by),
            **{f"answer_share/{letter}": share for letter, share in shares.items()},
        }
