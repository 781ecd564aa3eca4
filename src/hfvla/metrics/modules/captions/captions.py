"""Captions as an `evaluate` metric; the arithmetic is in `hfvla.metrics.captions`."""

import datasets
import evaluate

from hfvla.metrics.captions import caption_scores

_DESCRIPTION = "CIDEr-D without Java, BLEU-4 by sacrebleu and ROUGE-L by rouge-score."
_INPUTS = """
Args:
    predictions: a caption a picture.
    references: one or more captions of each picture.
"""


class Captions(evaluate.Metric):
    """Scores of captions."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": datasets.List(text)}),
        )

    def _compute(self, predictions, references):
        """Return the scores; see `_INPUTS` for the arguments."""
        return caption_scores(predictions, references)
