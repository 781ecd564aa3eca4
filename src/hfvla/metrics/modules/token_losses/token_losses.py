"""Perplexity, whole and by position, as an `evaluate` metric; the arithmetic is in `hfvla.metrics.token_losses`."""

import datasets
import evaluate
import numpy as np

from hfvla.metrics.token_losses import perplexity_by_position, token_loss_scores

_DESCRIPTION = "Loss and perplexity of answers, and the perplexity of their first, second ... tokens."
_INPUTS = """
Args:
    predictions: negative log-likelihoods of the tokens of each answer, in nats.
    references: the ids of these tokens; only their number is looked at.
    longest (int): positions to report.
"""


class TokenLosses(evaluate.Metric):
    """Losses of answer tokens."""

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

    def _compute(self, predictions, references, longest=16):
        """Return the scores; see `_INPUTS` for the arguments."""
        lengths = [(len(losses), len(tokens)) for losses, tokens in zip(predictions, references, strict=True)]
        wrong = [number for number, (losses, tokens) in enumerate(lengths) if losses != tokens]
        if wrong:
            losses, tokens = lengths[wrong[0]]
            raise ValueError(f"answer {wrong[0]} has {losses} losses and {tokens} tokens")
        arrays = [np.asarray(losses, dtype=float) for losses in predictions]
        values, _ = perplexity_by_position(arrays, longest)
        return {
            **token_loss_scores(arrays),
            **{f"perplexity_at/{place}": float(value) for place, value in enumerate(values, 1)},
        }
