"""A policy to look at: its next actions, and an episode of insertion with its force curve."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfvla.family import Curve, Shown
from hfvla.models.sensor_vla.evaluation.closed_loop import ENVIRONMENTS, ChunkedPolicy

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.sensor_vla.modeling_sensor_vla import SensorVLAForActionPrediction

__all__ = ["episode", "show"]


def show(
    model: SensorVLAForActionPrediction,
    processor: ProcessorMixin,
    request: Mapping[str, Any],
    reply: Mapping[str, Any],
) -> Shown:
    """Return an answer of `predict` as a person looks at it."""
    actions, fps = reply["actions"], float(reply["fps"])
    names = list(reply["names"] or [f"action {n}" for n in range(len(actions[0]))])
    times_s = [step / fps for step in range(len(actions))]
    lines = {name: [row[number] for row in actions] for number, name in enumerate(names)}
    curve = Curve("the next actions", "seconds from now", "robot's units", times_s, lines)
    rows = [
        [f"{time_s:.2f}", *(f"{value:+.4f}" for value in row)] for time_s, row in zip(times_s, actions, strict=True)
    ]
    text = "The sensor was read." if reply["sensor"] else "Without a sensor."
    return Shown(text, headings=("s", *names), rows=rows, curve=curve)


def episode(model: SensorVLAForActionPrediction, processor: ProcessorMixin, seed: int, steps: int = 0) -> Shown:
    """Let the policy insert a peg in the simulator; return the film and the force on the peg.

    Args:
        model: `SensorVLAForActionPrediction`.
        processor: its processor.
        seed: number of the held-out episode, from 0.
        steps: after which the episode has failed; 0 for the simulator's own number.

    Raises:
        MissingExtraError: the simulator is not installed.
        HfvlaError: this machine cannot draw, or the policy does not fit the simulator.
    """
    import importlib

    simulator = importlib.import_module(ENVIRONMENTS["insertion"])
    number = simulator.evaluation_seeds(1, first=seed)[0]
    arguments: dict[str, Any] = {"views": tuple(processor.views), "max_steps": steps or None}
    if processor.sensor is not None:
        arguments["window_s"] = processor.window_s
    policy = ChunkedPolicy(model.eval(), processor)
    (run,) = simulator.run_episodes(policy, [number], record_frames_for=1, progress=False, **arguments)
    with tempfile.TemporaryDirectory() as folder:
        film = Path(simulator.write_film(Path(folder) / "episode.mp4", [run])).read_bytes()
    times_s = [step / processor.fps for step in range(len(run.forces_n))]
    ended = "The peg is in" if run.success else "The peg is not in"
    text = f"**{ended}** after {run.steps} steps; at most {run.peak_force_n:.1f} N on the peg."
    curve = Curve("force on the peg", "s", "N", times_s, {"largest of the step": run.forces_n})
    return Shown(text, curve=curve, film=film)
