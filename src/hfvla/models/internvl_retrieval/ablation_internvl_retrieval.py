"""The same model on changed input: grey and corrupted pictures, captions of other buildings, words out of order."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from torch import Tensor

from hfvla.family import EvaluationContext
from hfvla.models.internvl_retrieval.corruption_internvl_retrieval import blank, corruptions
from hfvla.models.internvl_retrieval.embedding_internvl_retrieval import EncodedImages, encode_images, encode_texts
from hfvla.models.internvl_retrieval.placing_internvl_retrieval import predict_places, truth_of
from hfvla.models.internvl_retrieval.ranking_internvl_retrieval import similarity_ranks
from hfvla.models.internvl_retrieval.scoring_internvl_retrieval import (
    Searchable,
    means,
    place_columns,
    retrieval_columns,
)

__all__ = ["ablate"]

_MAX_PICTURES = 1000


def ablate(
    model: Any, processor: Any, data: Searchable, images: EncodedImages, texts: Tensor, context: EvaluationContext
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Score changed input, all of it on the same buildings: those of about 1,000 pictures, drawn by the seed.

    Args:
        model: `InternVLForRetrieval`.
        processor: its processor.
        data: what is evaluated; every picture can be read.
        images: its encoded pictures.
        texts: [N, D] its encoded captions, not normalised.
        context: seed and batch size.

    Returns:
        `tuple`: scores by ablation, "clean" for unchanged input, and notes.
    """
    rows = _some_rows(data, context.seed)
    part = Searchable.of([data.rows[row] for row in rows])
    own = images.take(data.image_of_row[rows][part.image_rows])
    told = texts[rows]
    truth = truth_of(part.rows)
    sentences = None
    if len(truth.boxes):
        sentences = encode_texts(model, processor, truth.sentences, batch_size=context.batch_size)

    def scores(shown: EncodedImages, captions: Tensor, places: bool = True) -> dict[str, float]:
        columns = retrieval_columns(similarity_ranks(shown.embed, captions, *part.ids(), device=model.device), part)
        if places and sentences is not None:
            found = predict_places(model, truth, sentences, shown, part.image_of_row, context.batch_size)
            columns |= place_columns(truth, found)
        kept = {name: value for name, value in means(columns).items() if "/" not in name}
        return {"n": float(len(part.rows)), **kept}

    found = {"clean": scores(own, told)}
    words = [_shuffled_words(caption, number, context.seed) for number, caption in enumerate(part.captions)]
    found["shuffled_words"] = scores(
        own, encode_texts(model, processor, words, batch_size=context.batch_size), places=False
    )
    found["shuffled_captions"] = scores(own, told[_other_buildings(part.groups, context.seed)], places=False)
    for name, change in {"blank_picture": blank, **corruptions(context.seed)}.items():
        shown = encode_images(model, processor, part.paths, batch_size=context.batch_size, change=change)
        found[name] = scores(shown, told)
    notes = [
        "Ablations: with grey pictures a text scores all of them the same, and a tie counts against the model; "
        "shuffled captions belong to another building, so what is left is chance."
    ]
    if len(part.paths) < len(data.paths):
        notes.append(f"Ablations search {len(part.paths)} of {len(data.paths)} pictures, whole buildings of them.")
    return found, notes


def _some_rows(data: Searchable, seed: int) -> np.ndarray:
    """Return the numbers of all rows, or those of buildings drawn until they have 1,000 pictures."""
    if len(data.paths) <= _MAX_PICTURES:
        return np.arange(len(data.rows))
    names, counts = np.unique(data.image_groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    enough = int(np.searchsorted(counts[order].cumsum(), _MAX_PICTURES)) + 1
    return np.flatnonzero(np.isin(data.groups, names[order[:enough]]))


def _shuffled_words(caption: str, number: int, seed: int) -> str:
    words = caption.split()
    random.Random(f"{seed}/{number}").shuffle(words)
    return " ".join(words)


def _other_buildings(groups: np.ndarray, seed: int) -> np.ndarray:
    """Return for each row a row of another building, each row once, as far as no building has half of all rows."""
    names, codes, counts = np.unique(groups, return_inverse=True, return_counts=True)
    place = np.random.default_rng(seed).permutation(len(names))
    order = np.argsort(place[codes], kind="stable")
    taken = np.empty(len(groups), dtype=np.int64)
    taken[order] = np.roll(order, int(counts.max()))
    return taken
