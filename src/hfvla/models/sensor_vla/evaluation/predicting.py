"""Chunks for the rows of a set, as they are or with part of the input taken away."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from hfvla.errors import DataError
from hfvla.family import EvaluationContext
from hfvla.models.sensor_vla.evaluation.ablation import donor_rows

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.sensor_vla.modeling_sensor_vla import SensorVLAForActionPrediction

__all__ = ["ABLATIONS", "NOT_FINITE", "Chunks", "count_option", "predict_chunks"]

Ablation = Literal["none", "without_sensor", "shuffled_sensor", "blank_views", "without_state"]
ABLATIONS: dict[str, str] = {
    "without_sensor": "no sample has a sensor: the learned no-sensor token stands in its place",
    "shuffled_sensor": "each sample gets the sensor window that another episode had at the same step",
    "blank_views": "every picture is grey",
    "without_state": "every state is the training rows' mean",
}
"""What is taken away, by name."""

NOT_FINITE = "the model's actions are not finite"
"""Why a row that can be read has no prediction."""

_NOISE_SEED = 1_000_003
_GREY = 128


@dataclass
class Chunks:
    """Predictions for rows.

    Attributes:
        actions: [N, H, A] float64 in the robot's units; NaN where the row could not be read, or the model's actions
            were not finite.
        failures: why, by row number.
    """

    actions: np.ndarray
    failures: dict[int, str] = field(default_factory=dict)


def count_option(context: EvaluationContext, name: str, default: int | None = None) -> int | None:
    """Return an option of the evaluation that is a whole number; from the command line it comes as text.

    Raises:
        DataError: it is something else.
    """
    value = context.options.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not str(value).isdigit():
        raise DataError("option of the evaluation", where=name, got=value, expected="a whole number, 0 or more")
    return int(value)


class _GreyFrames:
    """Reads every picture as grey, at its own size."""

    def __init__(self, frames: Any) -> None:
        self._frames = frames

    def load(self, refs: Sequence[Any]) -> list[np.ndarray]:
        return [np.full_like(pixels, _GREY) for pixels in self._frames.load(refs)]


def predict_chunks(
    model: SensorVLAForActionPrediction,
    processor: ProcessorMixin,
    collator: Any,
    rows: Any,
    context: EvaluationContext,
    ablation: Ablation = "none",
    unreadable: Collection[int] = (),
) -> Chunks:
    """Predict a chunk for every row, in batches; a row that cannot be read is named and left out.

    Args:
        model: `SensorVLAForActionPrediction`.
        processor: its processor.
        collator: turns rows into batches.
        rows: N rows.
        context: batch size, seed and device; option "denoising_steps"; the processes that share the batches.
        ablation: what is taken away.
        unreadable: numbers of rows that are known to fail, whose windows are given to no other row.
    """
    model.eval().to(context.device)
    steps = count_option(context, "denoising_steps")
    donors = donor_rows(rows, context.seed, unreadable) if ablation == "shuffled_sensor" else None
    found = Chunks(np.full((len(rows), processor.horizon, processor.action_dim), np.nan))

    def predict(start: int) -> tuple[list[tuple[list[int], np.ndarray]], dict[int, str]]:
        numbers, failures = list(range(start, min(start + context.batch_size, len(rows)))), dict[int, str]()
        chosen, sampled = [_with_donor(rows, number, donors) for number in numbers], []
        for own, batch in _batches(collator, numbers, chosen, failures):
            generator = torch.Generator().manual_seed(_NOISE_SEED + context.seed)
            sampled.append((own, processor.decode_actions(_sample(model, batch, ablation, generator, steps))))
        return sampled, failures

    own_frames = processor._frames
    if ablation == "blank_views":
        processor._frames = _GreyFrames(processor.frames)
    try:
        parts = context.processes.share(predict, range(0, len(rows), context.batch_size))
    finally:
        processor._frames = own_frames
    for sampled, failures in parts:
        found.failures |= failures
        for numbers, actions in sampled:
            _keep(found, numbers, actions)
    return found


def _keep(found: Chunks, numbers: Sequence[int], actions: np.ndarray) -> None:
    """Put the chunks of a batch in their places; one that is not finite is a failure."""
    for number, chunk in zip(numbers, actions, strict=True):
        if np.isfinite(chunk).all():
            found.actions[number] = chunk
        else:
            found.failures[number] = NOT_FINITE


def _batches(
    collator: Any, numbers: list[int], rows: list[Mapping[str, Any]], failures: dict[int, str]
) -> list[tuple[list[int], dict[str, Tensor]]]:
    """Return the batch of these rows, or, if one of them cannot be read, a batch for each that can."""
    try:
        return [(numbers, collator(rows))]
    except DataError as error:
        if len(rows) == 1:
            failures[numbers[0]] = str(error)
            return []
    return [
        part
        for number, row in zip(numbers, rows, strict=True)
        for part in _batches(collator, [number], [row], failures)
    ]


@torch.no_grad()
def _sample(
    model: SensorVLAForActionPrediction,
    batch: dict[str, Tensor],
    ablation: Ablation,
    generator: torch.Generator,
    steps: int | None,
) -> Tensor:
    batch = {name: value.to(model.device) for name, value in batch.items()}
    for name in ("actions", "action_mask", "confidence"):  # the targets never reach the model
        del batch[name]
    if ablation == "without_sensor" and "sensor_present" in batch:
        batch["sensor_present"] = torch.zeros_like(batch["sensor_present"])
    if ablation == "without_state" and "state" in batch:
        batch["state"] = torch.zeros_like(batch["state"])
    robot = {name: batch.pop(name) for name in ("state", "sensor", "sensor_present", "sensor_mask") if name in batch}
    fused = model.fuse(model.encode(**batch), **robot)
    return model.expert.sample(fused.tokens, feature_mask=fused.mask, generator=generator, steps=steps)


def _with_donor(rows: Any, number: int, donors: Mapping[int, int] | None) -> Mapping[str, Any]:
    if donors is None or number not in donors:
        return rows[number]
    return {**rows[number], "sensor": rows[donors[number]]["sensor"]}
