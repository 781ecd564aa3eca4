"""Taking the peg from the table and lifting it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hfvla.worlds.insertion.situation import Situation

__all__ = ["GRIP", "grasp_action", "is_held"]

GRIP = 0.6
_HOVER_M = 0.10
_CLOSED = 0.33
_HAND_FROM_PEG_M = np.array([0.0, 0.0, 0.026])


def is_held(situation: Situation) -> bool:
    """Whether the fingers are closed around the peg."""
    near = np.linalg.norm(situation.hand - situation.peg - _HAND_FROM_PEG_M) < 0.03
    return bool(near and situation.opening < _CLOSED)


def grasp_action(situation: Situation) -> np.ndarray:
    """Return the next action: over the peg, down, close, up, each step decided by where hand and fingers are."""
    goal = situation.peg + _HAND_FROM_PEG_M
    if is_held(situation):
        return np.array([0.0, 0.0, 0.012, GRIP])
    beside = np.abs(situation.hand - goal)[:2].max()
    above = situation.hand[2] - goal[2]
    if beside < 0.012 and above < 0.012:
        return np.array([*(0.3 * (goal - situation.hand)), GRIP])
    height = 0.0 if beside < 0.012 else min(_HOVER_M, 4.0 * beside)
    move = 0.35 * (goal + [0.0, 0.0, height] - situation.hand)
    return np.array([*np.clip(move, -0.02, 0.02), -1.0])
