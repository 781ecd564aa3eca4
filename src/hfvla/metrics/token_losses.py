"""Losses of answer tokens: perplexity, perplexity by position, and what counting words alone would reach.

A caption model must beat the unigram and the bigram model: a loss between theirs and the model's is what looking at
the picture, and more context, are worth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["TokenModel", "fit_token_model", "perplexity_by_position", "token_loss_scores"]

_HELD_OUT = 0.1
_SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
_START = -1


def token_loss_scores(losses: Sequence[np.ndarray]) -> dict[str, float]:
    """Return `loss` (nats a token), `perplexity` and `tokens`.

    Args:
        losses: N arrays [T_n] of negative log-likelihoods, one a token of an answer.

    Raises:
        ValueError: there is no token.
    """
    flat = np.concatenate([np.asarray(each, dtype=float).ravel() for each in losses]) if len(losses) else np.zeros(0)
    if not len(flat):
        raise ValueError(f"perplexity needs at least one token; got {len(losses)} answers without any")
    mean = float(flat.mean())
    return {"loss": mean, "perplexity": float(np.exp(mean)), "tokens": float(len(flat))}


def perplexity_by_position(losses: Sequence[np.ndarray], longest: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return the perplexity of the first, second ... token of the answers, and how many answers have one.

    Args:
        losses: N arrays [T_n].
        longest: positions to look at.

    Returns:
        `tuple`: [P] perplexities, [P] counts; P is the longest answer's length, at most `longest`.
    """
    places = min(longest, max((len(each) for each in losses), default=0))
    sums, counts = np.zeros(places), np.zeros(places, dtype=np.int64)
    for each in losses:
        part = np.asarray(each, dtype=float)[:places]
        sums[: len(part)] += part
        counts[: len(part)] += 1
    return np.exp(sums / np.maximum(counts, 1)), counts


@dataclass(frozen=True)
class TokenModel:
    """Probabilities of tokens, mixed of pairs, single tokens and the uniform one.

    Attributes:
        order: 1 or 2.
        single: [V] counts of tokens.
        pairs: count by (token before, token); empty for order 1.
        before: count by token before.
        share: weight of the pairs.
        floor: weight of the uniform distribution within the single tokens' part.
    """

    order: int
    single: np.ndarray
    pairs: Counter[tuple[int, int]]
    before: Counter[int]
    share: float
    floor: float

    def losses(self, tokens: Sequence[int]) -> np.ndarray:
        """Return the negative log-likelihood of each token, [T]."""
        single = (1 - self.floor) * self.single / max(self.single.sum(), 1) + self.floor / len(self.single)
        found, previous = [], _START
        for token in tokens:
            chance = float(single[token])
            seen = self.before[previous]
            if self.order == 2 and seen:
                chance = (1 - self.share) * chance + self.share * self.pairs[previous, token] / seen
            found.append(-np.log(chance))
            previous = int(token)
        return np.array(found)


def fit_token_model(answers: Sequence[Sequence[int]], vocabulary: int, order: int = 1, seed: int = 0) -> TokenModel:
    """Count tokens, or pairs of them, over training answers; weights are chosen on a tenth of them, held out.

    Args:
        answers: token ids of N answers, with the end token where the model writes one.
        vocabulary: V, number of ids.
        order: 1 for single tokens, 2 for pairs.
        seed: which answers are held out.

    Raises:
        ValueError: no answers, another order, or an id outside of the vocabulary.
    """
    if order not in (1, 2) or not any(len(answer) for answer in answers):
        raise ValueError(f"a token model of order 1 or 2 needs answers; got order {order}, {len(answers)} answers")
    highest = max(max(answer) for answer in answers if len(answer))
    if highest >= vocabulary:
        raise ValueError(f"token {highest} is outside of the vocabulary of {vocabulary}")
    places = np.random.default_rng(seed).permutation(len(answers))
    held_out = places[: max(1, int(_HELD_OUT * len(answers)))] if len(answers) > 1 else places[:0]
    kept = np.setdiff1d(places, held_out)
    counted = _count([answers[place] for place in kept], vocabulary, order)
    best, chosen = np.inf, (0.5, 0.01)
    for share in _SHARES if order == 2 else (0.0,):
        for floor in (1e-4, 1e-3, 1e-2, 1e-1):
            model = TokenModel(order, *counted, share, floor)
            found = [model.losses(answers[place]) for place in held_out]
            loss = float(np.concatenate(found).mean()) if found and sum(map(len, found)) else np.inf
            if loss < best:
                best, chosen = loss, (share, floor)
    return TokenModel(order, *_count(answers, vocabulary, order), *chosen)


def _count(
    answers: Sequence[Sequence[int]], vocabulary: int, order: int
) -> tuple[np.ndarray, Counter[tuple[int, int]], Counter[int]]:
    single = np.zeros(vocabulary, dtype=np.int64)
    pairs: Counter[tuple[int, int]] = Counter()
    before: Counter[int] = Counter()
    for answer in answers:
        ids = np.asarray(answer, dtype=np.int64)
        np.add.at(single, ids, 1)
        if order == 2 and len(ids):
            previous = [_START, *ids[:-1].tolist()]
            pairs.update(zip(previous, ids.tolist(), strict=True))
            before.update(previous)
    return single, pairs, before
