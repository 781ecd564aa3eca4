"""What a server asks of a sensor VLA: several observations in one pass, and what a robot must send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hfvla.errors import HfvlaError
from hfvla.models.sensor_vla.acting import observation_of, reply

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.sensor_vla.modeling_sensor_vla import SensorVLAForActionPrediction

__all__ = ["facts", "predict_batch"]


def predict_batch(
    model: SensorVLAForActionPrediction, processor: ProcessorMixin, requests: Sequence[Mapping[str, Any]]
) -> list[Any]:
    """Predict the chunks of several observations; those of one number of denoising steps in one pass.

    Args:
        model: `SensorVLAForActionPrediction`.
        processor: its processor.
        requests: as `FAMILY.request` says.

    Returns:
        An answer for each request, or its `HfvlaError`.

    Raises:
        HfvlaError: the observations cannot be answered together.
    """
    answers: list[Any] = [None] * len(requests)
    ready: dict[tuple[Any, ...], list[tuple[int, Any]]] = {}
    for number, request in enumerate(requests):
        try:
            one = observation_of(processor, request)
            processor.check_observation(one)
        except HfvlaError as error:
            answers[number] = error
            continue
        alike = (request.get("denoising_steps"), tuple(one.views), one.sensor is None)
        ready.setdefault(alike, []).append((number, one))
    for (steps, *_), group in ready.items():
        chunks = model.predict_actions(processor, [one for _, one in group], steps=steps)
        for (number, one), actions in zip(group, chunks, strict=True):
            answers[number] = reply(processor, one, actions)
    return answers


def facts(model: SensorVLAForActionPrediction, processor: ProcessorMixin) -> dict[str, Any]:
    """Return what a robot must send, and what it gets back."""
    seen = {"views": list(processor.views), "required_views": list(processor.required_views)}
    sent = {**seen, "state": processor.state_dim, "sensor": processor.sensor}
    got = {"names": processor.action["names"], "horizon": processor.horizon, "actions_per_s": processor.fps}
    return {"observation": sent, "actions": got}
