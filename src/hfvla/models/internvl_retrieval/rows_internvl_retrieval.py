"""predictions.jsonl of an evaluation: a row a caption, with its rank, what was found, and the scores of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from hfvla.metrics.functions.retrieval import RetrievalRanks, stream_top_k
from hfvla.models.internvl_retrieval.embedding_internvl_retrieval import EncodedImages, unit
from hfvla.models.internvl_retrieval.placing_internvl_retrieval import Places, Truth
from hfvla.models.internvl_retrieval.ranking_internvl_retrieval import Shortlists
from hfvla.models.internvl_retrieval.scoring_internvl_retrieval import Columns, Searchable, row_scores

__all__ = ["prediction_rows"]

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
