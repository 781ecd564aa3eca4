"""Measures the task itself: who solves it, and what tells the hidden offset at the moment a demonstrator moves."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from hfvla.worlds.insertion.environment import InsertionEnv, Start, Variant
from hfvla.worlds.insertion.expert import Demonstrator
from hfvla.worlds.insertion.recording import evaluation_seeds
from hfvla.worlds.insertion.rollout import Rollout, summarise

__all__ = ["demonstrator_success", "direction_accuracy"]

_TRAIN_SHARE = 0.6
_COMPONENTS = 40


def demonstrator_success(
    episodes: int, variant: Variant = "hidden_offset", start: Start = "grasped", *, blind: bool = False
) -> dict[str, Any]:
    """Return `summarise` of a demonstrator on evaluation seeds.

    Args:
        episodes: to run.
        variant: see `InsertionEnv`.
        start: see `InsertionEnv`.
        blind: the demonstrator never acts on the force.
    """
    rollouts = []
    with InsertionEnv(variant, start) as env:
        demonstrator = Demonstrator(blind=blind)
        for seed in tqdm(evaluation_seeds(episodes), desc="demonstrate", leave=False, disable=None):
            env.reset(seed)
            demonstrator.reset(seed)
            done, infos = False, []
            while not done:
                _, done, info = env.step(demonstrator.act(env))
                infos.append(info)
            forces = [info["mean_force_n"] for info in infos if info["contact"]]
            peak = max(info["peak_force_n"] for info in infos)
            mean = float(np.mean(forces)) if forces else 0.0
            rollouts.append(Rollout(seed, infos[-1]["success"], env.steps, env.steps, peak, mean, env.direction))
    return summarise(rollouts)


def direction_accuracy(episodes: int, start: Start = "grasped") -> dict[Literal["force", "state", "pictures"], float]:
    """Return how well a linear probe names the direction of the hidden offset at the moment a demonstrator acts on it.

    Each probe is a logistic regression on 60 % of the episodes, scored on the others (chance: one in four): on the
    sensor window, on the state, and on the leading principal components of the pictures.

    Args:
        episodes: at least 20.
        start: see `InsertionEnv`.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    force, state, pictures, told = [], [], [], []
    with InsertionEnv("hidden_offset", start) as env:
        demonstrator = Demonstrator()
        for seed in tqdm(evaluation_seeds(episodes), desc="feel", leave=False, disable=None):
            now, done = env.reset(seed), False
            demonstrator.reset(seed)
            while not done:
                action = demonstrator.act(env)
                if demonstrator.moves_aside:
                    assert now.sensor is not None
                    force.append(now.sensor.values.reshape(-1, 4, env.sensor_dim).mean(axis=1).reshape(-1))
                    state.append(now.state)
                    pictures.append(np.concatenate([now.views[name].reshape(-1) for name in now.views]) / 255)
                    told.append(env.direction)
                    break
                now, done, _ = env.step(action)
    first = round(_TRAIN_SHARE * len(told))
    parts = PCA(min(_COMPONENTS, first), random_state=0).fit(np.array(pictures[:first]))
    inputs = {"force": np.array(force), "state": np.array(state), "pictures": parts.transform(np.array(pictures))}
    found: dict[Any, float] = {}
    for name, values in inputs.items():
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
        found[name] = float(probe.fit(values[:first], told[:first]).score(values[first:], told[first:]))
    return found
