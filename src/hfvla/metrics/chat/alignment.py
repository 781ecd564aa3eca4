"""Pictures and captions in one space: retrieval both ways, beside chance, and figures of the space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hfvla.data.pictures import data_uri
from hfvla.data.samples.chat import ChatSample
from hfvla.data.samples.chat_pictures import load_reference
from hfvla.errors import DataError
from hfvla.family.chat import ChatSystem
from hfvla.family.evaluation import EvaluationContext, EvaluationResult, Figure
from hfvla.metrics.chat.tasks import answer_of, task_of
from hfvla.metrics.embedding_figures import embedding_map, found_pictures, similarity_heatmap
from hfvla.metrics.retrieval import chance_recalls, retrieval_scores

__all__ = ["add_alignment", "thumbnail"]

_MOST_PAIRS = 1_000
_MOST_LOOKED_AT = 5_000  # rows, of sets with few captions among them
_FEWEST = 2


def add_alignment(result: EvaluationResult, system: ChatSystem, rows: Any, context: EvaluationContext) -> list[Figure]:
    """Score how well a picture finds its caption and a caption its picture; one caption a picture.

    Up to 1,000 pictures, drawn by the seed. `t2i_r1` ... `mean_recall` join the metrics, those of a random order the
    baselines; a picture that cannot be read is left out and counted.

    Args:
        result: gets metrics, the baseline `chance` and notes.
        system: with `embed_pairs`; without, nothing is done.
        rows: of `ChatSample`.
        context: seed, batch size, processes.

    Returns:
        `list`: a heat map of similarities, a map of the space, and what is found for some captions.
    """
    if system.embed_pairs is None:
        return []
    pairs = _pairs(rows, context.seed)
    if len(pairs) < _FEWEST:
        return []
    size, embed = context.batch_size, system.embed_pairs

    def work(start: int) -> tuple[np.ndarray, np.ndarray] | str:
        try:
            return embed(pairs[start : start + size])
        except DataError as error:
            return str(error)

    parts = context.processes.share(work, range(0, len(pairs), size), "pairs")
    lost = [part for part in parts if isinstance(part, str)]
    if lost:
        result.notes.append(f"{len(lost)} batches of pictures and captions left out of retrieval; first: {lost[0]}")
    kept = [n for n, part in enumerate(parts) if not isinstance(part, str)]
    pairs = [pair for n in kept for pair in pairs[n * size : (n + 1) * size]]
    if len(pairs) < _FEWEST:
        return []
    images, texts = (np.concatenate([parts[n][side] for n in kept]).astype(np.float32) for side in (0, 1))
    _add_recalls(result, images, texts, pairs)
    if not context.processes.is_main:
        return []
    names = [answer_of(pair) for pair in pairs]
    return [
        similarity_heatmap(images, texts, names, context.seed),
        embedding_map(images, texts, context.seed),
        found_pictures(images, texts, names, lambda number: thumbnail(pairs[number]), context.seed),
    ]


def _pairs(rows: Any, seed: int) -> list[ChatSample]:
    """Return captions of different pictures: one a group."""
    found: dict[str, ChatSample] = {}
    for place in np.random.default_rng(seed).permutation(len(rows))[:_MOST_LOOKED_AT]:
        sample = ChatSample.from_row(rows[int(place)])
        if len(sample.images) == 1 and answer_of(sample) and task_of(sample) == "caption":
            found.setdefault(sample.group or sample.id, sample)
        if len(found) == _MOST_PAIRS:
            break
    return list(found.values())


def _add_recalls(result: EvaluationResult, images: np.ndarray, texts: np.ndarray, pairs: Sequence[ChatSample]) -> None:
    import torch

    groups = [pair.group or pair.id for pair in pairs]
    result.metrics |= retrieval_scores(torch.from_numpy(images), torch.from_numpy(texts), groups, groups)
    result.baselines.setdefault("chance", {}).update(chance_recalls(groups, groups))
    result.notes.append(f"Retrieval: {len(pairs)} pictures, one caption each, all against all.")


def thumbnail(sample: ChatSample) -> str | None:
    """Return the first picture of a sample as a small data URI, None without any that can be read."""
    if not sample.images:
        return None
    try:
        return data_uri(np.array(load_reference(sample.images[0], sample.id)))
    except DataError:
        return None
