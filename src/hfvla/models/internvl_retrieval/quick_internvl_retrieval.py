"""Quick metrics on the gathered outputs of an evaluation, for `keep_best`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hfvla.losses.spatial import spatial_labels
from hfvla.metrics.functions.boxes import box_scores
from hfvla.metrics.functions.retrieval import retrieval_scores
from hfvla.metrics.functions.spatial import spatial_scores

__all__ = ["quick_metrics"]


def quick_metrics(predictions: Any, labels: Any) -> dict[str, float]:
    """Return recall, box and relation scores, as far as the outputs have them.

    Every caption is a query, and every different image is in the gallery.

    Args:
        predictions: (text_embeds [N, D], image_embeds [N, D]) and, with sentences, box_predictions [N, S, 4] and
            spatial_logits [N, S, S, 6]; see `InternVLRetrievalOutput`.
        labels: (group_ids [N], image_ids [N], boxes [N, S, 4], box_mask [N, S]).
    """
    texts, images, *places = predictions
    groups, image_ids, boxes, mask = labels
    _, first = np.unique(image_ids, return_index=True)
    gallery, queries = torch.from_numpy(images[first]), torch.from_numpy(texts)
    found = {"retrieval_mean_recall": retrieval_scores(gallery, queries, groups[first], groups)["mean_recall"]}
    mask = np.asarray(mask, dtype=bool)
    if not places or not mask.any():
        return found
    predicted, logits = places
    found["box_iou"] = box_scores(predicted[mask], boxes[mask])["iou"]
    wanted = spatial_labels(torch.from_numpy(boxes), torch.from_numpy(mask)).numpy()
    pairs = wanted[..., 0] >= 0
    if pairs.any():
        answers = np.stack([logits[..., :3].argmax(-1), logits[..., 3:].argmax(-1)], axis=-1)
        found["spatial_accuracy"] = spatial_scores(answers[pairs], wanted[pairs])["pair_accuracy"]
        found["combined"] = float(np.mean(list(found.values())))
    return found
