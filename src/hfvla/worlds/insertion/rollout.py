"""Closed-loop evaluation: a policy drives the robot, and what happened is counted."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from hfvla.data.signals.observation import Observation, Policy
from hfvla.errors import DataError
from hfvla.worlds.insertion.cameras import VIEWS
from hfvla.worlds.insertion.environment import (
    IMAGE_SIZE,
    SENSOR_NOISE,
    WINDOW_S,
    InsertionEnv,
    SensorNoise,
    Start,
    Variant,
)

__all__ = ["FORCE_BUDGET_N", "Rollout", "run_episodes", "summarise", "wilson_interval"]

logger = logging.getLogger(__name__)

FORCE_BUDGET_N = 100.0
"""A demonstrator stays below it; "within_budget" counts who else does."""


@dataclass(frozen=True, eq=False)
class Rollout:
    """One episode.

    Attributes:
        seed: of the episode.
        success: the peg is in.
        steps: control steps until then, or until the episode ended.
        plans: times the policy was asked.
        peak_force_n: largest force on the peg.
        mean_contact_force_n: mean over the steps in contact; 0.0 without contact.
        direction: of the hidden offset; "" without one.
        frames: for the first few episodes, the views side by side at every step, [H, W, 3] uint8.
        forces_n: beside them, the largest force of each step, the first frame's 0.
    """

    seed: int
    success: bool
    steps: int
    plans: int
    peak_force_n: float
    mean_contact_force_n: float
    direction: str = ""
    frames: list[np.ndarray] = field(default_factory=list)
    forces_n: list[float] = field(default_factory=list)


def run_episodes(
    policy: Policy,
    seeds: Sequence[int],
    *,
    variant: Variant = "plain",
    start: Start = "grasped",
    image_size: int = IMAGE_SIZE,
    views: tuple[str, ...] = tuple(VIEWS),
    window_s: float = WINDOW_S,
    max_steps: int | None = None,
    sensor_noise: SensorNoise | None = SENSOR_NOISE,
    record_frames_for: int = 0,
    progress: bool | None = None,
) -> list[Rollout]:
    """Let a policy drive one episode a seed.

    Args:
        policy: asked for actions, all of which are executed before it is asked again.
        seeds: of the episodes; `evaluation_seeds` gives some that no recording uses.
        variant: see `InsertionEnv`.
        start: see `InsertionEnv`.
        image_size: that the policy was trained with.
        views: that the policy sees.
        window_s: seconds of sensor samples in an observation.
        max_steps: after which an episode has failed.
        sensor_noise: None for none.
        record_frames_for: the first episodes, for `write_film`.
        progress: show a bar with the time left; None where there is a terminal.

    Raises:
        DataError: a plan that is not [n, 4] with n >= 1, or not finite.
        MissingExtraError: metaworld or mujoco is not installed.
        HfvlaError: the machine has no library that draws.
    """
    rollouts: list[Rollout] = []
    hidden = None if progress is None else not progress
    with (
        InsertionEnv(
            variant,
            start,
            image_size=image_size,
            views=views,
            window_s=window_s,
            max_steps=max_steps,
            noise=sensor_noise,
        ) as env,
        tqdm(seeds, desc=f"insert ({variant})", unit="episode", disable=hidden) as bar,
    ):
        for number, seed in enumerate(bar):
            rollouts.append(_run_one(env, policy, int(seed), film=number < record_frames_for))
            bar.set_postfix_str(f"{sum(one.success for one in rollouts)}/{len(rollouts)} in", refresh=False)
    logger.info("insertion (%s, %s start): %d of %d episodes succeed", variant, start,
                sum(one.success for one in rollouts), len(rollouts))  # fmt: skip
    return rollouts


def _run_one(env: InsertionEnv, policy: Policy, seed: int, *, film: bool) -> Rollout:
    now, done, plans = env.reset(seed), False, 0
    policy.reset(seed)
    infos: list[dict[str, Any]] = []
    frames = [_side_by_side(now)] if film else []
    while not done:
        plan = _checked_plan(policy.plan(now), f"insertion seed {seed} at {now.time_s:.2f} s")
        plans += 1
        for action in plan:
            now, done, info = env.step(action)
            infos.append(info)
            if film:
                frames.append(_side_by_side(now))
            if done:
                break
    touching = [info["mean_force_n"] for info in infos if info["contact"]]
    return Rollout(
        seed=seed,
        success=infos[-1]["success"],
        steps=env.steps,
        plans=plans,
        peak_force_n=max(info["peak_force_n"] for info in infos),
        mean_contact_force_n=float(np.mean(touching)) if touching else 0.0,
        direction=env.direction,
        frames=frames,
        forces_n=[0.0, *(info["peak_force_n"] for info in infos)] if film else [],
    )


def _checked_plan(plan: np.ndarray, where: str) -> np.ndarray:
    numbers = np.asarray(plan)
    if numbers.ndim != 2 or numbers.shape[1] != InsertionEnv.action_dim or not len(numbers):
        raise DataError("a plan of another shape", where=where, got=numbers.shape, expected="(n, 4) with n >= 1")
    if not np.isfinite(numbers).all():
        step = int(np.argwhere(~np.isfinite(numbers))[0][0])
        raise DataError("a planned action is not finite", where=f"{where}: action {step} of the plan",
                        got=numbers[step].tolist())  # fmt: skip
    return numbers


def _side_by_side(now: Observation) -> np.ndarray:
    return np.concatenate([now.views[name] for name in now.views], axis=1)


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a success rate.

    Args:
        successes: of n.
        n: trials.
        level: of confidence.

    Raises:
        ValueError: no trial, more successes than trials, or a level outside (0, 1).

    Source: Wilson 1927; centre (p + z^2/2n) / (1 + z^2/n).
    """
    if n < 1 or not 0 <= successes <= n or not 0.0 < level < 1.0:
        raise ValueError(f"no interval for {successes} successes of {n} at level {level}")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    rate, scale = successes / n, 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / scale
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / scale
    return (centre - half if successes else 0.0), (centre + half if successes < n else 1.0)


def summarise(rollouts: Sequence[Rollout], level: float = 0.95) -> dict[str, Any]:
    """Return what a set of episodes says of a policy.

    Args:
        rollouts: at least one.
        level: of the interval's confidence.

    Returns:
        "episodes", "successes", "success_rate", "interval" (Wilson), "peak_force_n" {"median", "p95"},
        "within_budget" (share of episodes whose peak force stays below `FORCE_BUDGET_N`),
        "mean_contact_force_n" (over episodes with contact), "success_steps" (mean, None without a success) and, with
        a hidden offset, "by_direction" {direction: [successes, episodes]}.

    Raises:
        ValueError: no episode.
    """
    if not rollouts:
        raise ValueError("no episode to summarise")
    successes = [one for one in rollouts if one.success]
    peaks = [one.peak_force_n for one in rollouts]
    touched = [one.mean_contact_force_n for one in rollouts if one.mean_contact_force_n > 0]
    summary: dict[str, Any] = {
        "episodes": len(rollouts),
        "successes": len(successes),
        "success_rate": len(successes) / len(rollouts),
        "interval": list(wilson_interval(len(successes), len(rollouts), level)),
        "peak_force_n": {"median": float(np.median(peaks)), "p95": float(np.percentile(peaks, 95))},
        "within_budget": float(np.mean([peak < FORCE_BUDGET_N for peak in peaks])),
        "mean_contact_force_n": float(np.mean(touched)) if touched else 0.0,
        "success_steps": float(np.mean([one.steps for one in successes])) if successes else None,
    }
    directions = sorted({one.direction for one in rollouts} - {""})
    if directions:
        summary["by_direction"] = {
            name: [
                sum(one.success for one in rollouts if one.direction == name),
                sum(one.direction == name for one in rollouts),
            ]
            for name in directions
        }
    return summary
