"""Who is found at which rank: by similarity alone, and with the top of each list put in order by the matching head."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hfvla.data.processes import Processes
from hfvla.errors import PredictionError
from hfvla.metrics.retrieval import RetrievalRanks, first_hit_ranks, merge_ranks, stream_top_k
from hfvla.models.internvl_retrieval.search import EncodedImages, unit

if TYPE_CHECKING:
    from hfvla.models.internvl_retrieval.modeling_internvl_retrieval import InternVLForRetrieval

__all__ = ["K_TEST", "Shortlists", "match_shortlists", "reranked", "similarity_ranks", "sweep_of"]

logger = logging.getLogger(__name__)

K_TEST = 256
"""Items of each list that the matching head puts in order."""

_ALONE = Processes()
_SWEEP = (8, 32, 128)
_PAIRS_AT_A_TIME = 16_384


@dataclass(frozen=True)
class Shortlists:
    """The best items of each query by similarity, with what the matching head says of each pair.

    Shapes: I images, T texts, k items.

    Attributes:
        t2i: [T, k] images, best similarity first.
        t2i_scores: [T, k] logit of "they belong together".
        i2t: [I, k'] texts.
        i2t_scores: [I, k'].
    """

    t2i: np.ndarray
    t2i_scores: np.ndarray
    i2t: np.ndarray
    i2t_scores: np.ndarray

    @property
    def longest(self) -> int:
        """The longer of k and k'."""
        return max(self.t2i.shape[1], self.i2t.shape[1])


def similarity_ranks(
    images: Tensor,
    texts: Tensor,
    image_groups: np.ndarray,
    text_groups: np.ndarray,
    device: Any = None,
    processes: Processes = _ALONE,
) -> RetrievalRanks:
    """Return the rank of every query by cosine similarity.

    Args:
        images: [I, D].
        texts: [T, D].
        image_groups: [I] building of each image.
        text_groups: [T] building of each text.
        device: where scores are computed.
        processes: those that share the pictures.
    """
    shard = processes.index, processes.count
    own = first_hit_ranks(unit(images), unit(texts), image_groups, text_groups, device=device, shard=shard)
    return merge_ranks(processes.gather(own))


def sweep_of(k_test: int) -> list[int]:
    """Return the lengths of lists that are tried, `k_test` last."""
    return [k for k in _SWEEP if k < k_test] + [k_test]


@torch.inference_mode()
def match_shortlists(
    model: InternVLForRetrieval,
    images: EncodedImages,
    texts: Tensor,
    k_test: int = K_TEST,
    processes: Processes = _ALONE,
) -> Shortlists:
    """Let the matching head judge the best `k_test` of each query, both ways.

    Pairs are judged image by image, so that heads over the grid read an image's tokens once for all its texts.

    Args:
        model: `InternVLForRetrieval`, on the device it is to run on.
        images: I encoded pictures.
        texts: [T, D], not normalised.
        k_test: items a query; all of them where there are fewer.
        processes: those that share the pairs; each judges those of the pictures that it encoded.
    """
    model.eval()
    device = model.device
    sides = unit(images.embed).to(device), unit(texts).to(device)
    t2i, i2t = (
        np.concatenate([part.cpu().numpy().astype(np.int32) for _, _, part in stream_top_k(queries, items, k_test)])
        for queries, items in ((sides[1], sides[0]), (sides[0], sides[1]))
    )
    rows = np.arange(len(texts), dtype=np.int32), np.arange(len(images.embed), dtype=np.int32)
    image_of = np.concatenate([t2i.ravel(), np.repeat(rows[1], i2t.shape[1])])
    text_of = np.concatenate([np.repeat(rows[0], t2i.shape[1]), i2t.ravel()])
    scores = np.zeros(len(image_of), dtype=np.float32)
    owner = images.owner[image_of]
    own = owner == processes.index
    parts = processes.gather_done(lambda: _match(model, images, texts, image_of[own], text_of[own]))
    for number, part in enumerate(parts):
        scores[owner == number] = part
    first, second = scores[: t2i.size].reshape(t2i.shape), scores[t2i.size :].reshape(i2t.shape)
    return Shortlists(t2i, first, i2t, second)


def _match(
    model: InternVLForRetrieval, images: EncodedImages, texts: Tensor, image_of: np.ndarray, text_of: np.ndarray
) -> np.ndarray:
    """Return the score [P] of each pair of an image and a text.

    Raises:
        PredictionError: one is not finite.
    """
    order = np.argsort(image_of, kind="stable")
    scores = np.empty(len(order), dtype=np.float32)
    device = model.device
    for segments in _segments(image_of[order]):
        longest = max(end - start for start, end in segments)
        index = np.zeros((len(segments), longest), dtype=np.int64)
        for row, (start, end) in enumerate(segments):
            index[row, : end - start] = text_of[order[start:end]]
        owners = torch.from_numpy(image_of[order[[start for start, _ in segments]]].astype(np.int64))
        features = images.features(owners, device)
        told = texts[torch.from_numpy(index)].to(device)  # [B, S, D]
        logits = model.match_logits(features["image_embed"], features.get("grid"), told).float()  # [B, S, 2]
        found = (logits[..., 1] - logits[..., 0]).cpu().numpy()
        for row, (start, end) in enumerate(segments):
            scores[order[start:end]] = found[row, : end - start]
    broken = int((~np.isfinite(scores)).sum())
    if broken:  # a comparison with NaN is false, so such a pair would come out on top
        raise PredictionError(
            "the matching head's scores are not finite", got=f"{broken} of {len(scores)} pairs", expected="numbers"
        )
    return scores


def _segments(owners: np.ndarray, budget: int = _PAIRS_AT_A_TIME) -> Iterator[list[tuple[int, int]]]:
    """Yield batches of runs (start, end) of equal owners; padded to the longest run, a batch is within the budget.

    Args:
        owners: sorted.
        budget: most pairs of a batch, padding included.
    """
    edges = np.flatnonzero(np.diff(owners)) + 1
    batch: list[tuple[int, int]] = []
    longest = 0
    for start, end in zip([0, *edges.tolist()], [*edges.tolist(), len(owners)], strict=True):
        for first in range(start, end, budget):
            last = min(first + budget, end)
            if batch and max(longest, last - first) * (len(batch) + 1) > budget:
                yield batch
                batch, longest = [], 0
            batch.append((first, last))
            longest = max(longest, last - first)
    if batch:
        yield batch


def reranked(
    base: RetrievalRanks, lists: Shortlists, image_groups: np.ndarray, text_groups: np.ndarray, k: int
) -> RetrievalRanks:
    """Return the ranks when the first `k` items of each list are put in order by the matching head.

    Items behind them stay where they are, so a query without a hit among the first `k` keeps its rank. A tie counts
    against the model, as in `first_hit_ranks`.

    Args:
        base: ranks by similarity.
        lists: at least `k` long, or all items.
        image_groups: [I] building of each image.
        text_groups: [T] building of each text.
        k: items a query.
    """
    return RetrievalRanks(
        t2i=_places(base.t2i, lists.t2i[:, :k], lists.t2i_scores[:, :k], image_groups, text_groups),
        i2t=_places(base.i2t, lists.i2t[:, :k], lists.i2t_scores[:, :k], text_groups, image_groups),
        text_has_hit=base.text_has_hit,
        image_has_hit=base.image_has_hit,
    )


def _places(
    rank: np.ndarray, items: np.ndarray, scores: np.ndarray, item_groups: np.ndarray, query_groups: np.ndarray
) -> np.ndarray:
    hit = item_groups[items] == query_groups[:, None]
    best = np.where(hit, scores, -np.inf).max(axis=1, keepdims=True)
    above = ((scores >= best) & ~hit).sum(axis=1)
    return np.where(hit.any(axis=1), above, rank)
