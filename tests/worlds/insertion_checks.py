"""What the tests of the insertion task share."""

import importlib.util

import numpy as np
import pytest

from hfvla.worlds.insertion import Demonstrator, InsertionEnv

needs_simulator = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("metaworld", "mujoco")),
    reason='the extra "sim" is not installed',
)
needs_pictures = pytest.mark.system("pictures")


def demonstrate(
    env: InsertionEnv, seed: int, *, blind: bool = False, direction: str | None = None, touches: int = 1000
) -> list[tuple]:
    """Run one demonstration, at most so many steps in contact; returns (observation before, action, info) of each."""
    demonstrator = Demonstrator(blind=blind)
    now, done, steps = env.reset(seed, direction=direction), False, []
    demonstrator.reset(seed)
    while not done and touches:
        action = demonstrator.act(env)
        before = now
        now, done, info = env.step(action)
        steps.append((before, action, info))
        touches -= info["contact"]
    return steps


class Shadow:
    """A policy that solves the task by a second simulation in lockstep, and reports what it was shown."""

    def __init__(self, variant: str, chunk: int = 4) -> None:
        self.env, self.demonstrator, self.chunk = InsertionEnv(variant), Demonstrator(), chunk
        self.shown, self.seeds = [], []

    def reset(self, seed: int) -> None:
        self.env.reset(seed)
        self.demonstrator.reset(seed)
        self.seeds.append(seed)

    def plan(self, observation) -> np.ndarray:
        assert observation.time_s == self.env.time_s
        self.shown.append(observation)
        actions = []
        for _ in range(self.chunk):
            actions.append(self.demonstrator.act(self.env))
            if self.env.step(actions[-1])[1]:
                break
        return np.stack(actions)
