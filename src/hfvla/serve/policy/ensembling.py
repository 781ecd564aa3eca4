"""Temporal ensembling: the action of a step is a weighted mean of all chunks that predicted it."""

from __future__ import annotations

from collections import deque

import numpy as np

from hfvla.errors import HfvlaError

__all__ = ["TemporalEnsemble", "ensemble_weights"]


def ensemble_weights(count: int, decay: float) -> np.ndarray:
    """Return [count] weights that sum to 1, oldest prediction first: exp(-decay * i), normalised.

    A positive decay trusts old predictions more, 0 all alike, a negative one new ones more.

    Source: Zhao et al. 2023, "Learning Fine-Grained Bimanual Manipulation" (ACT), algorithm 2, m = 0.01 there.
    """
    weights = np.exp(-decay * np.arange(count, dtype=np.float64))
    return weights / weights.sum()


class TemporalEnsemble:
    """Keeps the chunks that still say something; a new chunk each control step.

    Actions are averaged channel by channel: right for steps and positions, and for angles as long as they do not jump
    at +-180 degrees.

    Args:
        decay: m of `ensemble_weights`.

    Raises:
        HfvlaError: a decay that is not finite.
    """

    def __init__(self, decay: float) -> None:
        if not np.isfinite(decay):
            raise HfvlaError("ensemble_decay", got=decay, expected="a finite number")
        self.decay = decay
        self._chunks: deque[tuple[int, np.ndarray]] = deque()
        self._step = 0

    def reset(self) -> None:
        """Forget all chunks."""
        self._chunks.clear()
        self._step = 0

    def update(self, chunk: np.ndarray) -> np.ndarray:
        """Take the chunk that begins at this step, and go on to the next step.

        Args:
            chunk: [H, A].

        Returns:
            [A], the action of this step, in the chunk's type.
        """
        self._chunks.append((self._step, chunk))
        while self._step - self._chunks[0][0] >= len(self._chunks[0][1]):
            self._chunks.popleft()
        predictions = np.stack([actions[self._step - start] for start, actions in self._chunks])  # [K, A]
        weights = ensemble_weights(len(predictions), self.decay)
        self._step += 1
        return (weights[:, None] * predictions).sum(axis=0).astype(chunk.dtype)
