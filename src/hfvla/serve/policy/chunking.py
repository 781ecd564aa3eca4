"""Real-time chunking: a chunk that begins while the last one is still being executed.

A chunk asked for at step k is there some steps later. What is executed in between is known already: the actions of the
old chunk. The new chunk's first d actions are fixed to them, so that the robot does not jump when it changes over.

Source: Black et al. 2025, "Real-Time Execution of Action Chunking Flow Policies" (arXiv 2506.07339). Differs: known
actions are given to the expert as its prefix, where it takes one; there is no guidance of the steps behind them.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from hfvla.errors import HfvlaError

__all__ = ["ActionChunk", "DelayEstimate", "blend_chunks", "fix_prefix"]


@dataclass(frozen=True, eq=False)
class ActionChunk:
    """Actions with the control step that the first of them belongs to.

    Attributes:
        start: control step.
        actions: [H, A].
        fixed: how many of the first actions are the old chunk's, d.
    """

    start: int
    actions: np.ndarray
    fixed: int = 0

    def covers(self, step: int) -> bool:
        """Return whether the chunk has an action for a control step."""
        return 0 <= step - self.start < len(self.actions)

    def at(self, step: int) -> np.ndarray:
        """Return [A], the action of a control step."""
        return self.actions[step - self.start]

    def ahead(self, step: int, count: int) -> np.ndarray:
        """Return [<= count, A], the actions from a control step on, as far as the chunk goes."""
        first = step - self.start
        return self.actions[first : first + count]


class DelayEstimate:
    """How many control steps a plan takes: the slowest of the last ones, rounded up.

    Args:
        fps: control steps a second.
        kept: plans remembered.
        fixed: this many steps whatever is measured; None to measure.

    Raises:
        HfvlaError: fewer than one step, or a rate that is not positive.
    """

    def __init__(self, fps: float, kept: int = 10, fixed: int | None = None) -> None:
        if not fps > 0 or (fixed is not None and fixed < 1):
            raise HfvlaError(
                "delay of a plan", got={"fps": fps, "delay_steps": fixed}, expected="a rate, 1 step or more"
            )
        self.fps, self.fixed = fps, fixed
        self._seconds: deque[float] = deque(maxlen=kept)

    def add(self, seconds: float) -> None:
        """Remember how long a plan took."""
        self._seconds.append(seconds)

    @property
    def seconds(self) -> float:
        """The slowest plan remembered; 0.0 before the first."""
        return max(self._seconds, default=0.0)

    @property
    def steps(self) -> int:
        """The delay d, 1 or more: the action of the step in which a plan is begun is always the old chunk's."""
        if self.fixed is not None:
            return self.fixed
        return max(1, math.ceil(self.seconds * self.fps - 1e-9))


def fix_prefix(chunk: np.ndarray, prefix: np.ndarray) -> np.ndarray:
    """Return a copy of a chunk [H, A] whose first actions are exactly those of `prefix` [P, A]."""
    fixed = chunk.copy()
    fixed[: len(prefix)] = prefix
    return fixed


def blend_chunks(chunk: np.ndarray, old: np.ndarray, fixed: int, steps: int) -> np.ndarray:
    """Lead from the old chunk over to the new one in a straight line, for experts that take no prefix.

    Action i of the result is the old one for i < fixed, then for j = i - fixed < steps the mean of both with weight
    (j + 1) / (steps + 1) on the new one, then the new one; where the old chunk has ended, the new one.

    Args:
        chunk: [H, A].
        old: [R, A], the old chunk from the same step on, R >= fixed.
        fixed: d.
        steps: of the blend.

    Returns:
        [H, A].
    """
    blended = fix_prefix(chunk, old[:fixed])
    for number in range(min(steps, len(old) - fixed, len(chunk) - fixed)):
        share = (number + 1) / (steps + 1)
        place = fixed + number
        blended[place] = (1.0 - share) * old[place] + share * chunk[place]
    return blended
