"""Demonstrators: they aim at the hole that is seen, and move aside only when the force has told them to.

What a demonstrator does next can be told from what a policy sees at that moment. Far from the box and beside the
hole: fly to the hole's height and side. In front of it: go in. Pressed against the face, in line with the hole that
is seen: slide to where the torque says that the hole is. Displaced along the face: finish the slide, then go in. The
one thing drawn at random is when a demonstrator, feeling the face, starts to slide: with `REACT` at every step, so
that it does not depend on how long the contact has lasted.
"""

from __future__ import annotations

import numpy as np

from hfvla.worlds.insertion.environment import DIRECTIONS, OFFSET_M, InsertionEnv
from hfvla.worlds.insertion.grasp import GRIP, grasp_action, is_held
from hfvla.worlds.insertion.situation import Situation

__all__ = ["Demonstrator"]

FELT_N = 5.0
REACT = 0.4
_FELT_SAMPLES = 20
_STANDOFF_M, _IN_LINE_M, _AT_FACE_M = 0.035, 0.004, 0.012
_CARRY_Z_M = 0.08
_FLY_M, _ENTER_M, _PRESS_M, _SLIDE_M = 0.02, 0.010, 0.006, 0.006


class Demonstrator:
    """Solves the task with what the simulator knows.

    Args:
        blind: never acts on the force; it keeps aiming at the hole that is seen.
    """

    def __init__(self, *, blind: bool = False) -> None:
        self.blind = blind

    def reset(self, seed: int) -> None:
        """Begin an episode.

        Args:
            seed: of its reaction times.
        """
        self._random = np.random.default_rng([int(seed), 3])
        self._sliding = self._carrying = False

    @property
    def moves_aside(self) -> bool:
        """Whether the force has made it leave the hole that is seen."""
        return self._sliding

    def act(self, env: InsertionEnv) -> np.ndarray:
        """Return the next action, [4] float32, as `InsertionEnv.step` takes it."""
        now = env.situation
        self._carrying = self._carrying or (is_held(now) and now.tip[2] > _CARRY_Z_M)
        if not self._carrying:
            return grasp_action(now).astype(np.float32)
        from_seen = now.tip - now.seen_hole
        if not self.blind and not self._sliding and now.direction and from_seen[0] < _AT_FACE_M:
            self._sliding = self._feels(env) and bool(self._random.random() < REACT)
        move = _slide(now) if self._sliding else _aim(from_seen)
        return np.array([*move, GRIP], dtype=np.float32)

    def _feels(self, env: InsertionEnv) -> bool:
        """Whether something has pushed the peg back all through the last 0.05 s."""
        return bool(env.sensor.values[-_FELT_SAMPLES:, 0].mean() > FELT_N)


def _aim(from_seen: np.ndarray) -> np.ndarray:
    """Fly to the hole that is seen, then into it."""
    beside = -from_seen[1:]
    off_line = np.abs(beside).max()
    lateral = 0.35 * beside
    if off_line < _IN_LINE_M or from_seen[0] < _AT_FACE_M:
        # Slower near the face: what is touched is touched gently.
        forward = -_ENTER_M if from_seen[0] > _STANDOFF_M or from_seen[0] < -_AT_FACE_M else -_PRESS_M
    else:
        forward = np.clip(0.3 * (_STANDOFF_M - from_seen[0]), -_FLY_M, _FLY_M)
    return np.array([forward, *_limited(lateral, _FLY_M)])


def _slide(now: Situation) -> np.ndarray:
    """Move along the face to the hole that is felt, then into it."""
    along = np.array(DIRECTIONS[now.direction])[1:]
    beside = (now.true_hole - now.tip)[1:]
    done = float((now.tip - now.seen_hole)[1:] @ along)
    forward = -_ENTER_M if done > OFFSET_M - 0.006 else -0.001
    return np.array([forward, *_limited(0.5 * beside, _SLIDE_M)])


def _limited(move: np.ndarray, limit: float) -> np.ndarray:
    """Shorten a motion, its direction kept."""
    return move * min(1.0, limit / max(float(np.abs(move).max()), 1e-9))
