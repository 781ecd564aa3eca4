"""Scores as columns: one value a query, box or pair, with the row it belongs to; means, intervals and rows follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from hfvla.errors import DataError
from hfvla.family import EvaluationContext
from hfvla.metrics.bootstrap import bootstrap_intervals
from hfvla.metrics.retrieval import CUTOFFS, RetrievalRanks, legacy_building_ids, stream_top_k
from hfvla.models.internvl_retrieval.evaluation.placing import Places, Truth, per_box, per_pair
from hfvla.models.internvl_retrieval.evaluation.ranking import Shortlists
from hfvla.models.internvl_retrieval.search import EncodedImages, unit

__all__ = [
    "Columns",
    "RECALLS",
    "Searchable",
    "all_intervals",
    "means",
    "place_columns",
    "prediction_rows",
    "retrieval_columns",
    "row_scores",
]

RECALLS = tuple(f"{way}_r{k}" for way in ("t2i", "i2t") for k in CUTOFFS)
"""t2i_r1 ... i2t_r10."""

_COMPOSITES = {
    "mean_recall": RECALLS,
    "reranked_mean_recall": tuple(f"reranked/{name}" for name in RECALLS),
    "combined": ("mean_recall", "box_iou", "spatial_accuracy"),
}
"""Means of other scores; each may name those before it."""

Columns = dict[str, tuple[np.ndarray, np.ndarray]]
"""Values [V] by metric, each with the number [V] of the row it belongs to; the metric is the mean of its values."""


@dataclass(frozen=True)
class Searchable:
    """Rows as a retrieval problem: N captions, each a text query, and I different pictures.

    Attributes:
        rows: of `ImageText`.
        paths: I files.
        image_rows: [I] number of the first row of each picture.
        image_of_row: [N] number of each row's picture.
        groups: [N] building of each row; a picture without one is a building of its own.
    """

    rows: list[dict[str, Any]]
    paths: list[str]
    image_rows: np.ndarray
    image_of_row: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> Searchable:
        """Find the different pictures of the rows.

        Raises:
            DataError: no rows, or a row without a picture.
        """
        if not rows:
            raise DataError("there is nothing to evaluate", got="0 rows", fix="Check the evaluation source's options.")
        without = [str(row["id"]) for row in rows if not row["image"]]
        if without:
            raise DataError(
                f"{len(without)} rows have no picture, so nothing is known to score them by",
                where=without[0],
                fix="Queries without answers are ranked by `hfvla predict --data ... --csv ... --gallery ...`.",
            )
        number_of: dict[str, int] = {}
        for row in rows:
            number_of.setdefault(row["image"], len(number_of))
        image_of_row = np.array([number_of[row["image"]] for row in rows])
        _, image_rows = np.unique(image_of_row, return_index=True)
        groups = np.array([row["group"] or f"{row['image']} itself" for row in rows])
        return cls([dict(row) for row in rows], list(number_of), image_rows, image_of_row, groups)

    @property
    def captions(self) -> list[str]:
        """N texts."""
        return [row["caption"] for row in self.rows]

    @property
    def image_groups(self) -> np.ndarray:
        """[I] building of each picture."""
        return self.groups[self.image_rows]

    def ids(self, legacy: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return the building of each picture [I] and each text [N]; `legacy` has GeoText's own off-by-one ids."""
        images = np.array(legacy_building_ids(self.image_groups.tolist())) if legacy else self.image_groups
        return images, images[self.image_of_row]


def retrieval_columns(ranks: RetrievalRanks, data: Searchable, prefix: str = "") -> Columns:
    """Return the hits of every query: `RECALLS`, text queries at their rows, picture queries at their first rows."""
    rows = np.arange(len(data.rows))
    return {
        f"{prefix}{way}_r{k}": (((rank < k) & valid).astype(float), owners)
        for way, rank, valid, owners in (
            ("t2i", ranks.t2i, ranks.text_has_hit, rows),
            ("i2t", ranks.i2t, ranks.image_has_hit, data.image_rows),
        )
        for k in CUTOFFS
    }


def place_columns(truth: Truth, found: Places) -> Columns:
    """Return the scores of every box and of every pair."""
    columns: Columns = {}
    if len(truth.boxes):
        columns |= {name: (values, truth.box_rows) for name, values in per_box(truth, found).items()}
    if len(truth.relations):
        columns |= {name: (values, truth.pair_rows) for name, values in per_pair(truth, found).items()}
    return columns


def means(columns: Columns) -> dict[str, float]:
    """Return the mean of each column, and the means of means."""
    return _with_composites({name: float(values.mean()) for name, (values, _) in columns.items() if len(values)})


def _with_composites(scores: dict[str, float]) -> dict[str, float]:
    for name, parts in _COMPOSITES.items():
        if all(part in scores for part in parts):
            scores[name] = sum(scores[part] for part in parts) / len(parts)
    return scores


def row_scores(columns: Columns, count: int) -> list[dict[str, Any]]:
    """Return, for each of `count` rows, its values by metric: a number, or a list where it has several."""
    found: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, (values, owners) in columns.items():
        for value, owner in zip(values.tolist(), owners.tolist(), strict=True):
            found[owner].setdefault(name, []).append(value)
    return [{name: each[0] if len(each) == 1 else each for name, each in row.items()} for row in found]


def all_intervals(
    systems: Mapping[str, Columns], groups: np.ndarray, context: EvaluationContext
) -> dict[str, tuple[float, float]]:
    """Bootstrap every score of every system over the same resampled buildings.

    Args:
        systems: columns by name; the model itself is "".
        groups: [N] building of each row.
        context: seed and number of resamples.

    Returns:
        `dict`: (low, high) by metric for the model, "baselines/<name>/<metric>" for the others, and
        "difference/<name>/<metric>" for the model minus the other, paired.
    """
    if context.bootstrap_samples < 1:
        return {}
    names, codes = np.unique(groups, return_inverse=True)
    arrays: dict[str, np.ndarray] = {}
    for system, columns in systems.items():
        for metric, (values, owners) in columns.items():
            sums = np.bincount(codes[owners], weights=values, minlength=len(names))
            counts = np.bincount(codes[owners], minlength=len(names))
            arrays[f"{system}\n{metric}"] = np.stack([sums, counts], axis=1)

    def scores(**sample: np.ndarray) -> dict[str, float]:
        found: dict[str, dict[str, float]] = {system: {} for system in systems}
        for name, array in sample.items():
            system, _, metric = name.partition("\n")
            total, count = array.sum(axis=0)
            if count:
                found[system][metric] = total / count
        ours = _with_composites(found.pop("", {}))
        flat = dict(ours)
        for system, theirs in found.items():
            for metric, value in _with_composites(theirs).items():
                flat[f"baselines/{system}/{metric}"] = value
                if metric in ours:
                    flat[f"difference/{system}/{metric}"] = ours[metric] - value
        return flat

    return bootstrap_intervals(scores, arrays, names.tolist(), context.bootstrap_samples, context.seed)


_SHOWN = 5
_KEYS = ("id", "image_id", "caption", "platform", "source")


def prediction_rows(
    data: Searchable,
    images: EncodedImages,
    texts: Tensor,
    systems: Mapping[str, RetrievalRanks],
    lists: Shortlists | None,
    columns: Columns,
    truth: Truth,
    places: Places | None,
) -> list[dict[str, Any]]:
    """Return one dict a caption.

    `scores` holds what the row adds to each metric, so that two systems can be compared row by row. What belongs to a
    picture (`image_rank` and the i2t scores) is on its first row alone.

    Args:
        data: what is evaluated.
        images: encoded pictures.
        texts: [N, D].
        systems: ranks by "similarity" and, where the matching head was asked, "re-ranked".
        lists: shortlists of the matching head, or None.
        columns: all values.
        truth: boxes of the rows.
        places: predicted boxes and relations.
    """
    first = np.concatenate([part.numpy() for _, _, part in stream_top_k(unit(texts), unit(images.embed), _SHOWN)])
    names = [data.rows[row]["image_id"] or data.paths[number] for number, row in enumerate(data.image_rows)]
    ranks = systems["similarity"]
    found = []
    for number, (row, scores) in enumerate(zip(data.rows, row_scores(columns, len(data.rows)), strict=True)):
        entry = {key: row[key] for key in _KEYS}
        entry |= {"group": str(data.groups[number]), "found": [names[image] for image in first[number]]}
        entry |= {"prediction": entry["found"][0], "gold": row["image_id"], "rank": int(ranks.t2i[number])}
        if lists is not None:
            entry["reranked_rank"] = int(systems["re-ranked"].t2i[number])
        image = int(data.image_of_row[number])
        if data.image_rows[image] == number:
            entry["image_rank"] = int(ranks.i2t[image])
        found.append({**entry, "scores": scores})
    for number, owner in enumerate(truth.box_rows if places is not None else ()):
        assert places is not None
        box = [round(float(value), 5) for value in places.boxes[number]]
        found[owner].setdefault("boxes", []).append({"sentence": truth.sentences[number], "predicted": box})
    return found
