"""What the simulator knows and no policy is told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Situation"]


@dataclass(frozen=True, eq=False)
class Situation:
    """What the simulator knows and no policy is told; for demonstrators and tests.

    Attributes:
        hand: [3] m.
        opening: of the gripper.
        peg: [3] m, where it is to be held.
        tip: [3] m, centre of its front face.
        seen_hole: [3] m, centre of the mouth that the cameras see.
        true_hole: [3] m, centre of the mouth that the peg feels.
        direction: one of `DIRECTIONS`; "" without a hidden offset.
    """

    hand: np.ndarray
    opening: float
    peg: np.ndarray
    tip: np.ndarray
    seen_hole: np.ndarray
    true_hole: np.ndarray
    direction: str
