"""Plots of an evaluation as data; `hfvla.evaluation.plots` draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hfvla.data.pictures import data_uri
from hfvla.data.samples.actions import FrameRef
from hfvla.family import EvaluationResult, Figure
from hfvla.metrics.actions import per_step_errors

if TYPE_CHECKING:
    from hfvla.models.sensor_vla.processing_sensor_vla import SensorVLAProcessor

__all__ = ["closed_loop_figure", "open_loop_figures"]

_EPISODE_STEPS = 400  # drawn of one episode
_EXAMPLES = 6


def open_loop_figures(
    processor: SensorVLAProcessor,
    rows: Sequence[Mapping[str, Any]],
    predicted: np.ndarray,
    target: np.ndarray,
    mask: np.ndarray,
) -> list[Figure]:
    """Return the figures of an open-loop evaluation.

    Args:
        processor: for names of channels and the rate.
        rows: N of them.
        predicted: [N, H, A] in the robot's units.
        target: [N, H, A].
        mask: [N, H] bool.
    """
    names = processor.action["names"] or [f"channel {number}" for number in range(target.shape[2])]
    errors = _channel_errors(predicted, target, mask)
    order = [int(channel) for channel in np.argsort(-errors["relative"], kind="stable")]  # the worst first
    return [
        _trajectory(rows, predicted, target, names, processor.fps, order, errors),
        _horizon(predicted, target, mask, names),
        _step_errors(predicted, target, mask, names, order),
        _channels(names, order, errors),
        _frames(processor, rows, predicted, target, mask, names),
    ]


def _channel_errors(predicted: np.ndarray, target: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Return [A] mean absolute error, spread of what was done, and the first in units of the second."""
    done, guessed = target[mask], predicted[mask]
    error, spread = np.abs(done - guessed).mean(axis=0), done.std(axis=0)
    return {"mae": error, "spread": spread, "relative": error / np.maximum(spread, 1e-9 * np.abs(done).max() + 1e-12)}


def _channels(names: Sequence[str], order: Sequence[int], errors: Mapping[str, np.ndarray]) -> Figure:
    rows = [
        [names[c], float(errors["mae"][c]), float(errors["spread"][c]), float(errors["relative"][c])] for c in order
    ]
    data = {"columns": ["channel", "mean absolute error", "spread of the data", "error / spread"], "rows": rows}
    caption = "The worst first; an error of one spread is what the mean action would make. The robot's units."
    return Figure("channel_errors", "table", "Error by channel", data, caption)


def _trajectory(
    rows: Sequence[Mapping[str, Any]],
    predicted: np.ndarray,
    target: np.ndarray,
    names: Sequence[str],
    fps: float,
    order: Sequence[int],
    errors: Mapping[str, np.ndarray],
) -> Figure:
    """First action of each step of one episode, done and predicted."""
    episode = rows[0]["episode"]
    numbers = sorted((n for n, row in enumerate(rows) if row["episode"] == episode), key=lambda n: rows[n]["index"])
    numbers = numbers[:_EPISODE_STEPS]
    times_s = [rows[number]["timestamp"] for number in numbers]
    panels = [
        {
            "title": f"{names[channel]}: error {errors['mae'][channel]:.3g}",
            "xlabel": "seconds",
            "series": {
                "done": {"x": times_s, "y": target[numbers, 0, channel].tolist()},
                "predicted": {"x": times_s, "y": predicted[numbers, 0, channel].tolist()},
            },
        }
        for channel in order
    ]
    caption = (
        f"First action of each chunk over one episode ({episode}), {fps:g} a second, in the robot's units. The "
        "channels by their error in units of their spread over the set, the worst first."
    )
    return Figure("trajectory", "curves", "Actions of one episode: done and predicted", {"panels": panels}, caption)


def _horizon(predicted: np.ndarray, target: np.ndarray, mask: np.ndarray, names: Sequence[str]) -> Figure:
    """Whole chunks of four rows with large movements."""
    movement = np.where(mask.all(axis=1), target.std(axis=1).sum(axis=1), -1.0)  # whole chunks first
    chosen = np.argsort(-movement, kind="stable")[:4]
    panels = []
    for number in chosen:
        valid = np.flatnonzero(mask[number])
        channel = int(np.ptp(target[number][valid], axis=0).argmax())
        panels.append(
            {
                "title": f"row {number}: {names[channel]}",
                "xlabel": "step of the chunk",
                "series": {
                    "done": {"x": valid.tolist(), "y": target[number, valid, channel].tolist()},
                    "predicted": {"x": valid.tolist(), "y": predicted[number, valid, channel].tolist()},
                },
            }
        )
    caption = "The four chunks that change most, and of each the channel that does."
    return Figure("horizon", "curves", "Chunks over their horizon", {"panels": panels}, caption)


def _step_errors(
    predicted: np.ndarray, target: np.ndarray, mask: np.ndarray, names: Sequence[str], order: Sequence[int]
) -> Figure:
    errors = per_step_errors(predicted, target, mask)
    steps = [int(step) for step in np.flatnonzero(errors["count"])]
    panels = [
        {
            "title": names[channel],
            "xlabel": "step of the chunk",
            "ylabel": "mean absolute error" if len(order) < 10 else "",
            "series": {"error": {"x": steps, "y": errors["mae_by_channel"][steps, channel].tolist()}},
        }
        for channel in order
    ]
    caption = "How the error grows with the distance from now; the robot's units."
    return Figure("step_errors", "curves", "Error by step of the chunk", {"panels": panels}, caption)


def _frames(
    processor: SensorVLAProcessor,
    rows: Sequence[Mapping[str, Any]],
    predicted: np.ndarray,
    target: np.ndarray,
    mask: np.ndarray,
    names: Sequence[str],
) -> Figure:
    """Pictures of the rows with the largest errors, with the first action done and predicted."""
    errors = np.where(mask[:, :, None], np.abs(predicted - target), 0.0)
    spread = np.maximum(target[mask].std(axis=0), 1e-9)
    badness = (errors / spread).sum(axis=(1, 2)) / np.maximum(mask.sum(axis=1), 1) / len(names)
    chosen = np.argsort(-badness, kind="stable")[:_EXAMPLES]
    examples = []
    for number in chosen:
        row = rows[int(number)]
        views = [view for view in row["views"] if view["name"] in processor.views]
        refs = [FrameRef(**{key: value for key, value in view.items() if key != "name"}) for view in views]
        pictures = processor.frames.load(refs)
        height = min(len(picture) for picture in pictures)
        side_by_side = np.concatenate([picture[:height] for picture in pictures], axis=1)
        facts = [["Error", f"{badness[number]:.3g} spreads a step and channel"]]
        facts += [["Views", ", ".join(view["name"] for view in views)], ["Task", row["task"]]]
        facts += [
            [name, f"done {done:.4g}, predicted {guess:.4g}"]
            for name, done, guess in zip(names, target[number, 0], predicted[number, 0], strict=True)
        ]
        facts.append(["Sensor", "yes" if row["sensor"] else "none"])
        shown = {"title": row["id"], "image": data_uri(side_by_side), "facts": facts}
        examples.append({**shown, "badge": "", "bars": {}, "text": ""})
    caption = "First action of the chunk, in the robot's units; the rows with the largest errors of the set first."
    return Figure("frames", "text_examples", "Worst mistakes", {"examples": examples}, caption)


def closed_loop_figure(result: EvaluationResult, systems: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Success rates with their Wilson intervals.

    Args:
        result: taken for its number of episodes.
        systems: by name, {"success_rate", "interval"}.
    """
    data = {
        "groups": ["success rate"],
        "series": {name: [found["success_rate"]] for name, found in systems.items()},
        "errors": {name: [list(found["interval"])] for name, found in systems.items()},
        "ylabel": "share of episodes",
        "ylim": [0, 1],
    }
    episodes = int(result.metrics["episodes"])
    caption = f"{episodes} episodes on seeds that no training used. Whiskers: 95 % Wilson intervals."
    return Figure("closed_loop", "bars", "Closed loop: episodes that end in success", data, caption)
