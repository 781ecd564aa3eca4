"""Image-text retrieval as an `evaluate` metric; the arithmetic is in `hfvla.metrics.retrieval`."""

import datasets
import evaluate
import torch
import torch.nn.functional as F

from hfvla.metrics.retrieval import chance_recalls, retrieval_scores

_DESCRIPTION = "Recall at 1, 5 and 10 from text to image and from image to text, and their mean, with chance beside."
_INPUTS = """
Args:
    predictions: list of D features a text; normalised here.
    references: group (building) of each text; an image of the same group is a hit.
    images (list of list of float): D features an image.
    image_groups (list of str): group of each image.
"""


class Retrieval(evaluate.Metric):
    """Recalls in both directions."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("float32")),
                    "references": datasets.Value("string"),
                }
            ),
        )

    def _compute(self, predictions, references, images, image_groups):
        """Return the scores; see `_INPUTS` for the arguments."""
        texts, pictures = (
            F.normalize(torch.as_tensor(features, dtype=torch.float32), dim=-1) for features in (predictions, images)
        )
        image_groups = [str(group) for group in image_groups]
        chance = chance_recalls(image_groups, references)
        scores = retrieval_scores(pictures, texts, image_groups, references)
        return {**scores, **{f"chance_{name}": value for name, value in chance.items()}}
