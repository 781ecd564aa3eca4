"""VQA accuracy as an `evaluate` metric; the arithmetic is in `hfvla.metrics.vqa`."""

import datasets
import evaluate
import numpy as np

from hfvla.metrics.vqa import vqa_accuracies

_DESCRIPTION = "Share of people who gave the answer, up to three, averaged over leaving each out; official clean-up."
_INPUTS = """
Args:
    predictions: an answer a question.
    references: the answers of all people, usually ten, of each question.
    kinds (list of str, optional): kind of each question, for scores by kind.
    always_normalise (bool): clean up also where all people agree; the official script does not.
"""


class Vqa(evaluate.Metric):
    """VQA accuracy."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": datasets.List(text)}),
        )

    def _compute(self, predictions, references, kinds=None, always_normalise=False):
        """Return the scores; see `_INPUTS` for the arguments."""
        found = vqa_accuracies(predictions, references, always_normalise=always_normalise)
        scores = {"vqa_accuracy": float(found.mean())}
        values = np.asarray(kinds if kinds is not None else [""] * len(found))
        for kind in sorted(set(values) - {""}):
            scores[f"vqa_accuracy_by_kind/{kind}"] = float(found[values == kind].mean())
        return scores
