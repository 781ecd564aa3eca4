"""Batched predictions, and the same with picture or text taken away: what does each contribute?"""

from __future__ import annotations

import hashlib
import io
import logging
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hfvla.family import EvaluationContext
from hfvla.metrics.calibration import sigmoid
from hfvla.models.ember_vlm.evaluation.scores import Choices, gold_sets, selection_metrics

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.ember_vlm.modeling_ember_vlm import EmberVLMForRobotSelection

__all__ = ["EMPTY_TASK", "calibrated_choices", "predict_logits", "run_ablations", "shared_pixels"]

logger = logging.getLogger(__name__)

EMPTY_TASK = "Task"
"""Stands for the task text where only the picture may speak."""

_BLANK_SIZE = 224
Change = Callable[[int, dict[str, Any]], dict[str, Any]]


def predict_logits(
    model: EmberVLMForRobotSelection,
    processor: ProcessorMixin,
    rows: Any,
    context: EvaluationContext,
    change: Change | None = None,
    label: str = "predict",
) -> np.ndarray:
    """Return uncalibrated selection logits [N, R] in row order, also such that are not finite.

    Args:
        model: `EmberVLMForRobotSelection`.
        processor: its processor.
        rows: N rows; not changed.
        context: batch size, and the processes that share the batches.
        change: maps (index, row) to the row that the model sees.
        label: name on the progress bar.
    """
    from hfvla.models.ember_vlm import FAMILY

    collator = FAMILY.load("collator")(processor, model.config, training=False)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()

    def predict(start: int) -> np.ndarray:
        index = range(start, min(start + context.batch_size, len(rows)))
        batch = collator([change(i, rows[i]) if change else rows[i] for i in index])
        logits = model(**{name: tensor.to(device) for name, tensor in batch.items()}).selection_logits
        return logits.float().cpu().numpy()

    with torch.inference_mode():
        found = context.processes.share(predict, range(0, len(rows), context.batch_size), label)
    model.train(was_training)
    return np.concatenate(found) if found else np.zeros((0, len(model.config.robots)))


def calibrated_choices(model: EmberVLMForRobotSelection, logits: np.ndarray) -> Choices:
    """Apply the checkpoint's temperature and threshold to logits [N, R]."""
    calibration = model.config.calibration
    return Choices.at(sigmoid(logits / calibration["temperature"]), calibration["threshold"])


def _blank_png() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (_BLANK_SIZE, _BLANK_SIZE), (127, 127, 127)).save(buffer, format="PNG")
    return buffer.getvalue()


def _other_rows(count: int, seed: int) -> np.ndarray:
    """Return a permutation of `count` rows without a fixed point (one cycle through a random order)."""
    order = np.random.default_rng(seed).permutation(count)
    other = np.empty(count, dtype=int)
    other[order] = np.roll(order, 1)
    return other


def run_ablations(
    model: EmberVLMForRobotSelection,
    processor: ProcessorMixin,
    rows: Any,
    choices: Choices,
    context: EvaluationContext,
    prior: Choices | None = None,
) -> dict[str, dict[str, float]]:
    """Score the rows that have a picture, with picture or text taken away.

    Args:
        model: the model.
        processor: its processor.
        rows: N labelled rows.
        choices: what the model chose for them untouched.
        context: seed and batch size.
        prior: the majority baseline's choices, for the rows that cannot be answered without the picture.

    Rows whose scores are not finite under a change are left out of that change's scores (and "n" says so).

    Returns:
        `dict`: scores by name: with_image (untouched, same rows), blank_image, shuffled_image, text_only, image_only,
        and scene_only/{with_image, blank_image, prior} on rows with `needs_scene`; empty without pictures.
    """
    index = np.array([i for i, image in enumerate(rows["image"]) if image is not None], dtype=int)
    if not len(index):
        return {}
    seen = rows.select(index)
    gold, robots = gold_sets(seen, model.config.robots), model.config.robots
    blank, other = _blank_png(), _other_rows(len(index), context.seed)
    changes: dict[str, Change] = {
        "blank_image": lambda i, row: row | {"image": blank},
        "shuffled_image": lambda i, row: row | {"image": seen[int(other[i])]["image"]},
        "text_only": lambda i, row: row | {"image": None},
        "image_only": lambda i, row: row | {"task": EMPTY_TASK},
    }
    ablated = {
        name: calibrated_choices(model, predict_logits(model, processor, seen, context, change, name))
        for name, change in changes.items()
    }
    untouched = choices.rows(index)
    systems = {"with_image": untouched, **ablated}
    usable = {name: np.isfinite(each.probabilities).all(axis=1) for name, each in systems.items()}
    scores = {
        name: selection_metrics(gold[usable[name]], each.rows(usable[name]), robots)
        for name, each in systems.items()
        if usable[name].any()
    }
    scene = np.flatnonzero(np.asarray(seen["needs_scene"], dtype=bool))
    if len(scene):
        systems = {"with_image": untouched}
        if usable["blank_image"].all():
            systems["blank_image"] = ablated["blank_image"]
        if prior is not None:
            systems["prior"] = prior.rows(index)
        for name, each in systems.items():
            scores[f"scene_only/{name}"] = selection_metrics(gold[scene], each.rows(scene), robots)
    return scores


def shared_pixels(rows: Any) -> dict[str, int]:
    """Count pictures that several rows share, and those of them that come with different gold sets.

    A picture that never comes with two labels could carry the label in its pixels.

    Returns:
        `dict`: images, distinct_images, shared_images, shared_with_different_gold.
    """
    labels: dict[str, list[frozenset[str]]] = defaultdict(list)
    for image, robots in zip(rows["image"], rows["robots"], strict=True):
        if image is not None:
            labels[hashlib.sha256(image).hexdigest()].append(frozenset(robots))
    return {
        "images": sum(map(len, labels.values())),
        "distinct_images": len(labels),
        "shared_images": sum(len(found) > 1 for found in labels.values()),
        "shared_with_different_gold": sum(len(set(found)) > 1 for found in labels.values()),
    }
