"""What a model that has learned to look must beat, on the same rows: chance, colours and words, and words alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hfvla.data.pictures import load_picture
from hfvla.data.rows.columns import column
from hfvla.errors import DataError
from hfvla.family import EvaluationContext
from hfvla.metrics.retrieval import chance_recalls, first_hit_ranks
from hfvla.metrics.retrieval_baselines import (
    fit_colour_layout,
    fit_sentence_boxes,
    fit_sentence_relations,
    picture_features,
)
from hfvla.models.internvl_retrieval.evaluation.placing import Places, Truth, truth_of
from hfvla.models.internvl_retrieval.evaluation.scores import (
    Columns,
    Searchable,
    place_columns,
    retrieval_columns,
)

__all__ = ["chance", "fitted_baselines"]

logger = logging.getLogger(__name__)

_MAX_FITTED_PICTURES = 4000
_MAX_SENTENCES = 20_000


def chance(data: Searchable) -> dict[str, float]:
    """Return the expected recalls of a random order, exactly."""
    return chance_recalls(*data.ids())


def fitted_baselines(
    data: Searchable, truth: Truth, context: EvaluationContext
) -> tuple[dict[str, Columns], list[str]]:
    """Fit baselines on training rows of buildings that are not evaluated, and score them.

    `colour_layout` searches; `prior` says the mean box and the most frequent relations; `sentence_only` reads words.

    Args:
        data: what is evaluated.
        truth: its boxes and relations.
        context: training rows and seed.

    Returns:
        `tuple`: columns by baseline, and notes.
    """
    if context.train_rows is None:
        return {}, ["There are no training rows at hand, so no baseline is fitted."]
    evaluated = set(data.groups.tolist())
    groups = column(context.train_rows, "group")
    kept = [number for number, group in enumerate(groups) if group not in evaluated]
    notes = []
    if len(kept) < len(groups):
        notes.append(
            f"{len(groups) - len(kept)} of {len(groups)} training rows show buildings that are also evaluated: the "
            "model may have seen them; baselines are fitted without."
        )
    if len({groups[number] for number in kept}) < 2:
        return {}, [*notes, "Fewer than two buildings are left to fit baselines on."]
    rows = _sample(context.train_rows, kept, context.seed)
    found = {}
    layout, problem = _colour_layout(rows, data, context.seed)
    if layout is not None:
        found["colour_layout"] = layout
        notes.append("Colour layout: ridge regression from 12 x 12 colours and colour histograms to caption words.")
    notes += [problem] if problem else []
    if len(truth.boxes):
        found |= _placing(truth_of(rows), truth)
    return found, notes


def _sample(rows: Any, kept: Sequence[int], seed: int) -> list[dict[str, Any]]:
    """Return rows of at most 4,000 pictures, drawn by the seed, in their order."""
    images = rows.select_columns(["image"])["image"] if hasattr(rows, "select_columns") else rows["image"]
    own = [images[number] for number in kept]
    different = sorted(set(own))
    chosen = np.random.default_rng(seed).permutation(len(different))[:_MAX_FITTED_PICTURES]
    wanted = {different[number] for number in chosen}
    numbers = [number for number, image in zip(kept, own, strict=True) if image in wanted]
    return [dict(row) for row in rows.select(numbers)]


def _features(paths: Sequence[str]) -> tuple[np.ndarray, list[int]]:
    """Return features of the pictures that can be read, and their numbers."""
    found, numbers = [], []
    for number, path in enumerate(paths):
        try:
            found.append(picture_features(load_picture(path, path, draft_side=96)))
            numbers.append(number)
        except DataError as error:
            logger.warning("colour_layout: a picture is left out: %s", error)
    return np.stack(found) if found else np.zeros((0, 0)), numbers


def _colour_layout(rows: Sequence[Mapping[str, Any]], data: Searchable, seed: int) -> tuple[Columns | None, str]:
    train = Searchable.of(rows)
    features, numbers = _features(train.paths)
    shown, readable = _features(data.paths)
    if len(readable) < len(data.paths) or len(set(train.image_groups[numbers])) < 2:
        return None, "Colour layout is not fitted: pictures are missing."
    captions: list[list[str]] = [[] for _ in train.paths]
    for row, image in zip(train.rows, train.image_of_row, strict=True):
        captions[image].append(row["caption"])
    fitted = fit_colour_layout(features, [captions[n] for n in numbers], train.image_groups[numbers].tolist(), seed)
    images, texts = (torch.from_numpy(part).float() for part in (fitted.images(shown), fitted.texts(data.captions)))
    return retrieval_columns(first_hit_ranks(images, texts, *data.ids()), data), ""


def _placing(train: Truth, truth: Truth) -> dict[str, Columns]:
    """Score the mean box with the usual relations, and what words alone tell."""
    if not len(train.boxes):
        return {}
    pairs = train.pairs
    usual = [np.bincount(column, minlength=3).argmax() for column in train.relations.T] if len(pairs) else [1, 1]
    guess = np.tile(np.asarray(usual), (len(truth.relations), 1))
    prior = Places(np.tile(train.boxes.mean(axis=0), (len(truth.boxes), 1)), guess)
    some = np.linspace(0, len(train.boxes) - 1, min(len(train.boxes), _MAX_SENTENCES)).astype(int)
    boxes = fit_sentence_boxes([train.sentences[number] for number in some], train.boxes[some])(truth.sentences)
    relations = guess
    if len(pairs) and len(truth.pairs):
        some = np.linspace(0, len(pairs) - 1, min(len(pairs), _MAX_SENTENCES)).astype(int)
        read = fit_sentence_relations(_sentences(train, pairs[some]), train.relations[some])
        relations = read(_sentences(truth, truth.pairs))
    return {
        "prior": place_columns(truth, prior),
        "sentence_only": place_columns(truth, Places(boxes, relations)),
    }


def _sentences(truth: Truth, pairs: np.ndarray) -> list[tuple[str, str]]:
    return [(truth.sentences[first], truth.sentences[second]) for first, second in pairs]
