"""The policy in the data's simulator: success, contact force, steps, and what the sensor is worth there."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hfvla.data.rows.columns import column
from hfvla.data.signals.observation import Observation
from hfvla.errors import DataError, did_you_mean
from hfvla.family import EvaluationContext, EvaluationResult
from hfvla.models.sensor_vla.evaluation.ablation import DonorWindows
from hfvla.models.sensor_vla.evaluation.figures import closed_loop_figure
from hfvla.models.sensor_vla.evaluation.predicting import count_option

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.sensor_vla.modeling_sensor_vla import SensorVLAForActionPrediction

__all__ = ["ENVIRONMENTS", "ChunkedPolicy", "run_closed_loop", "simulator_facts"]

ENVIRONMENTS: dict[str, str] = {"insertion": "hfvla.worlds.insertion"}
"""Simulators by the name that rows carry in their details ("environment"); each module has `evaluation_seeds`,
`run_episodes`, `summarise` and `write_film`. The other details are arguments of `run_episodes`."""


class ChunkedPolicy:
    """Predicts a chunk, has its first actions executed, and predicts anew.

    Args:
        model: `SensorVLAForActionPrediction`.
        processor: its processor.
        action_steps: actions executed of each chunk; the whole chunk when not given.
        denoising_steps: of diffusion and flow experts.
        sensor: "as_it_is"; "without": the policy is told that there is none; "shuffled": it is given the windows that
            another, recorded episode had at the same time.
        donors: recorded windows, for "shuffled".
    """

    def __init__(
        self,
        model: SensorVLAForActionPrediction,
        processor: ProcessorMixin,
        *,
        action_steps: int | None = None,
        denoising_steps: int | None = None,
        sensor: str = "as_it_is",
        donors: DonorWindows | None = None,
    ) -> None:
        if action_steps is not None and not 1 <= action_steps <= processor.horizon:
            raise DataError("action_steps", got=action_steps, expected=f"1 to {processor.horizon}, the chunk's length")
        self.model, self.processor, self.sensor, self.donors = model, processor, sensor, donors
        self.action_steps, self.denoising_steps = action_steps or processor.horizon, denoising_steps
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Start an episode; its noise, and the episode that gives it shuffled windows, are drawn from `seed`."""
        self._noise = torch.Generator().manual_seed(seed)
        if self.donors is not None:
            self.donors.choose(np.random.default_rng(seed))

    def plan(self, observation: Observation) -> np.ndarray:
        """Return the next actions, [action_steps, A] in the robot's units."""
        if self.sensor == "without":
            observation = replace(observation, sensor=None)
        elif self.donors is not None and observation.sensor is not None:
            observation = replace(observation, sensor=self.donors.at(observation.time_s))
        chunk = self.model.predict_actions(
            self.processor, [observation], steps=self.denoising_steps, generator=self._noise
        )[0]
        return chunk[: self.action_steps]


def simulator_facts(rows: Any) -> tuple[str, dict[str, str]]:
    """Return the simulator that rows come from, and what else their details say of it.

    Raises:
        DataError: they come from none.
    """
    facts = dict(part.split("=", 1) for part in rows[0]["details"].split(";") if part)
    name = facts.pop("environment", "")
    if name not in ENVIRONMENTS:
        raise DataError(
            "these rows come from no simulator, so there is no closed loop",
            where=str(rows[0]["id"]),
            got=name or None,
            expected=", ".join(ENVIRONMENTS),
            fix=did_you_mean(name, ENVIRONMENTS) if name else "Set closed_loop to 0.",
        )
    return name, facts


def run_closed_loop(
    result: EvaluationResult,
    model: SensorVLAForActionPrediction,
    processor: ProcessorMixin,
    rows: Any,
    context: EvaluationContext,
    episodes: int,
) -> None:
    """Run the policy on held-out seeds of the simulator that the rows come from, and add what happened to `result`.

    With ablations, the same seeds are run again without the sensor and with the windows of other episodes.

    Raises:
        DataError: the rows come from no simulator.
    """
    name, facts = simulator_facts(rows)
    simulator = importlib.import_module(ENVIRONMENTS[name])
    seeds = simulator.evaluation_seeds(episodes)
    videos = count_option(context, "videos", 4) or 0
    kinds = ["as_it_is"]
    if processor.sensor is not None and context.ablations:
        kinds += ["without", "shuffled"] if any(column(rows, "sensor")) else ["without"]
    systems: dict[str, Mapping[str, Any]] = {}
    arguments = _arguments(facts)
    if processor.sensor is not None:
        arguments["window_s"] = processor.window_s
    model.eval().to(context.device)
    for kind in kinds:
        policy = ChunkedPolicy(
            model,
            processor,
            action_steps=count_option(context, "action_steps"),
            denoising_steps=count_option(context, "denoising_steps"),
            sensor=kind,
            donors=DonorWindows(processor, rows) if kind == "shuffled" else None,
        )
        shown = videos if kind == "as_it_is" else 0
        rollouts = _shared_episodes(
            simulator, policy, seeds, shown, context, views=tuple(processor.views), **arguments
        )
        summary = simulator.summarise(rollouts)
        systems["as it is" if kind == "as_it_is" else f"{kind} sensor"] = summary
        _add(result, kind, summary)
        if shown and context.processes.is_main:
            with tempfile.TemporaryDirectory() as folder:
                film = simulator.write_film(Path(folder) / "closed_loop.mp4", rollouts[:shown])
                result.files["closed_loop.mp4"] = film.read_bytes()
    result.figures.append(closed_loop_figure(result, systems))
    result.notes.append(f"Closed loop: {episodes} episodes of '{name}' ({facts}), seeds that no recording uses.")


def _shared_episodes(
    simulator: Any,
    policy: ChunkedPolicy,
    seeds: Sequence[int],
    shown: int,
    context: EvaluationContext,
    **arguments: Any,
) -> list[Any]:
    """Run one episode a seed, every n-th on each of n processes; the first `shown` of all have frames."""
    index, count = context.processes.index, context.processes.count
    own = len(range(index, shown, count))
    found = context.processes.gather_done(
        lambda: simulator.run_episodes(policy, seeds[index::count], record_frames_for=own, **arguments)
    )
    rollouts: list[Any] = [None] * len(seeds)
    for number, part in enumerate(found):
        rollouts[number::count] = part
    return rollouts


def _arguments(facts: Mapping[str, str]) -> dict[str, Any]:
    """Return the details of a row as arguments; what is all digits is a number."""
    return {name: int(value) if value.isdigit() else value for name, value in facts.items()}


def _add(result: EvaluationResult, kind: str, summary: Mapping[str, Any]) -> None:
    """Add the numbers of the closed loop; those of an ablation to its column."""
    peak = summary["peak_force_n"]
    numbers = {
        "success_rate": summary["success_rate"],
        "peak_force_n": peak["median"],
        "episodes": float(summary["episodes"]),
        "closed_loop/peak_force_p95_n": peak["p95"],
        "closed_loop/mean_contact_force_n": summary["mean_contact_force_n"],
        "closed_loop/within_force_budget": summary["within_budget"],
    }
    if summary["success_steps"] is not None:
        numbers["closed_loop/steps_of_successes"] = summary["success_steps"]
    for name, (successes, episodes) in (summary.get("by_direction") or {}).items():
        numbers[f"closed_loop/success_rate_{name}"] = successes / episodes
    if kind == "as_it_is":
        result.metrics |= numbers
        result.intervals["success_rate"] = tuple(summary["interval"])
    else:
        result.ablations.setdefault(f"{kind}_sensor", {}).update(numbers)
