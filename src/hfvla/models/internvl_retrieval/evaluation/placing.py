"""Where sentences point, and how their objects lie: predictions for the rows of a set that have boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hfvla.data.processes import Processes
from hfvla.errors import DataError, PredictionError
from hfvla.losses.spatial import spatial_labels
from hfvla.metrics.boxes import box_overlaps, box_scores
from hfvla.metrics.spatial import per_class_scores, spatial_scores
from hfvla.models.internvl_retrieval.search import EncodedImages

if TYPE_CHECKING:
    from hfvla.models.internvl_retrieval.modeling_internvl_retrieval import InternVLForRetrieval

__all__ = ["Places", "Truth", "per_box", "per_pair", "place_scores", "predict_places", "truth_of"]

_ALONE = Processes()


@dataclass(frozen=True)
class Truth:
    """Sentences, boxes and relations of the rows that have boxes.

    Shapes: B boxes, P ordered pairs (A, B) of boxes of one row.

    Attributes:
        sentences: [B] texts.
        boxes: [B, 4] cxcywh, shares of the picture.
        box_rows: [B] number of each box's row.
        pairs: [P, 2] numbers of the two boxes.
        relations: [P, 2] classes: where the second lies from the first, horizontally and vertically.
    """

    sentences: list[str]
    boxes: np.ndarray
    box_rows: np.ndarray
    pairs: np.ndarray
    relations: np.ndarray

    @property
    def pair_rows(self) -> np.ndarray:
        """[P] number of each pair's row."""
        return self.box_rows[self.pairs[:, 0]] if len(self.pairs) else np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Places:
    """What a system says of a `Truth`.

    Attributes:
        boxes: [B, 4].
        relations: [P, 2] classes.
    """

    boxes: np.ndarray
    relations: np.ndarray


def truth_of(rows: Sequence[Mapping[str, Any]], slots: int | None = None) -> Truth:
    """Gather what the rows say of places.

    Args:
        rows: of `ImageText`.
        slots: boxes that a row may have; None for any number.

    Raises:
        DataError: a row has not as many sentences as boxes, or more than `slots`.
    """
    sentences: list[str] = []
    boxes: list[Sequence[float]] = []
    owners, pairs, relations = [], [], []
    for number, row in enumerate(rows):
        count = len(row["boxes"])
        if count != len(row["sentences"]) or (slots is not None and count > slots):
            raise DataError(
                "sentences and boxes do not fit",
                where=str(row["id"]),
                got=f"{len(row['sentences'])} sentences, {count} boxes",
                expected="as many of both" + (f", at most {slots} (sentence_slots)" if slots else ""),
            )
        if not count:
            continue
        labels = spatial_labels(torch.tensor([row["boxes"]]).float(), torch.ones(1, count, dtype=torch.bool))[0]
        for first in range(count):
            for second in range(count):
                if first != second:
                    pairs.append((len(boxes) + first, len(boxes) + second))
                    relations.append(labels[first, second].tolist())
        sentences += row["sentences"]
        boxes += row["boxes"]
        owners += [number] * count
    return Truth(
        sentences,
        np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
        np.asarray(owners, dtype=np.int64),
        np.asarray(pairs, dtype=np.int64).reshape(-1, 2),
        np.asarray(relations, dtype=np.int64).reshape(-1, 2),
    )


@torch.inference_mode()
def predict_places(
    model: InternVLForRetrieval,
    truth: Truth,
    sentence_vectors: Tensor,
    images: EncodedImages,
    image_of_row: Sequence[int] | np.ndarray,
    batch_size: int = 32,
    processes: Processes = _ALONE,
) -> Places:
    """Point at what each sentence names, and say how the objects of a row lie.

    Args:
        model: `InternVLForRetrieval`, on the device it is to run on.
        truth: sentences; its boxes and relations are not looked at.
        sentence_vectors: [B, D], not normalised.
        images: encoded pictures.
        image_of_row: number of each row's picture.
        batch_size: rows at a time.
        processes: those that share the rows; each points in the pictures that it encoded.

    Raises:
        PredictionError: a box or a relation is not finite.
    """
    model.eval()
    boxes = np.zeros((len(truth.sentences), 4))
    logits = np.zeros((len(truth.pairs), 6), dtype=np.float32)
    starts = np.searchsorted(truth.box_rows, np.unique(truth.box_rows))
    bounds = [*starts.tolist(), len(truth.box_rows)]
    slots = max((end - start for start, end in zip(bounds, bounds[1:], strict=False)), default=0)
    slot_of = np.arange(len(truth.box_rows)) - np.repeat(starts, np.diff(bounds))
    place_of = np.repeat(np.arange(len(starts)), np.diff(bounds))
    index = np.zeros((len(starts), slots), dtype=np.int64)
    index[place_of, slot_of] = np.arange(len(truth.box_rows))
    owners = torch.as_tensor(np.asarray(image_of_row)[truth.box_rows[starts]], dtype=torch.long)
    process_of = images.owner[owners.numpy()]

    def locate() -> tuple[np.ndarray, np.ndarray]:
        mine = np.flatnonzero(process_of == processes.index)
        for start in range(0, len(mine), batch_size):
            chosen = mine[start : start + batch_size]
            features = images.features(owners[chosen], model.device)
            features["sentence_embed"] = sentence_vectors[torch.from_numpy(index[chosen])].to(model.device)
            found, relations = (part.float().cpu().numpy() for part in model.locate(features))
            own = np.isin(place_of, chosen)
            boxes[own] = found[np.searchsorted(chosen, place_of[own]), slot_of[own]]
            if len(truth.pairs):
                first, second = truth.pairs.T
                own = own[first]
                row = np.searchsorted(chosen, place_of[first[own]])
                logits[own] = relations[row, slot_of[first[own]], slot_of[second[own]]]
        return boxes, logits

    # Each fills in its own places and leaves the others 0.
    boxes, logits = (np.sum(parts, axis=0) for parts in zip(*processes.gather_done(locate), strict=True))
    if not (np.isfinite(boxes).all() and np.isfinite(logits).all()):
        broken = int((~np.isfinite(boxes)).any(axis=1).sum()), int((~np.isfinite(logits)).any(axis=1).sum())
        raise PredictionError("boxes or relations are not finite", got=f"{broken[0]} boxes, {broken[1]} pairs")
    return Places(boxes, np.stack([logits[:, :3].argmax(1), logits[:, 3:].argmax(1)], axis=1))


def place_scores(truth: Truth, found: Places, *, details: bool = True) -> dict[str, float]:
    """Return box_iou and spatial_accuracy (both axes of a pair right), and with `details` all other scores.

    Args:
        truth: boxes and relations.
        found: what a system says.
        details: also give "boxes/..." and "relations/..."; the latter by class.
    """
    scores: dict[str, float] = {}
    if len(truth.boxes):
        boxes = box_scores(found.boxes, truth.boxes)
        scores["box_iou"] = boxes["iou"]
        named = {"n" if name == "boxes" else name: value for name, value in boxes.items() if name != "iou"}
        scores |= {f"boxes/{name}": value for name, value in named.items() if details}
    if len(truth.relations):
        relations = spatial_scores(found.relations, truth.relations)
        scores["spatial_accuracy"] = relations["pair_accuracy"]
        if details:
            kept = ("horizontal_accuracy", "vertical_accuracy", "macro_f1")
            scores |= {f"relations/{name}": relations[name] for name in kept}
            scores |= {"relations/answer_accuracy": relations["accuracy"], "relations/n": relations["pairs"]}
            scores |= per_class_scores(found.relations, truth.relations)
    return scores


def per_box(truth: Truth, found: Places) -> dict[str, np.ndarray]:
    """Return the scores of every box: box_iou and, beside it, boxes/giou, boxes/l1, boxes/accuracy_50 and _70."""
    iou, giou = box_overlaps(found.boxes, truth.boxes)
    return {
        "box_iou": iou,
        "boxes/giou": giou,
        "boxes/l1": np.abs(found.boxes - truth.boxes).sum(axis=1),
        "boxes/accuracy_50": (iou >= 0.5).astype(float),
        "boxes/accuracy_70": (iou >= 0.7).astype(float),
    }


def per_pair(truth: Truth, found: Places) -> dict[str, np.ndarray]:
    """Return the scores of every pair: spatial_accuracy (both axes right) and relations/answer_accuracy."""
    right = found.relations == truth.relations
    return {"spatial_accuracy": right.all(axis=1).astype(float), "relations/answer_accuracy": right.mean(axis=1)}
