"""From what a robot knows now to its next actions in its own units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hfvla.data.pictures import read_picture
from hfvla.data.signals.observation import Observation
from hfvla.data.signals.sensor_loader import SensorSamples
from hfvla.errors import DataError, PredictionError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["ActionInferenceMixin", "observation_of", "predict", "reply"]


class ActionInferenceMixin:
    """Methods of `SensorVLAForActionPrediction` that take observations instead of tensors."""

    @torch.no_grad()
    def encode_observations(self: Any, processor: ProcessorMixin, observations: Sequence[Observation]) -> Any:
        """Run the backbone on the pictures and tasks of observations.

        Args:
            processor: the checkpoint's.
            observations: B of them.

        Returns:
            `BackboneFeatures`, for `predict_actions(features=...)`.

        Raises:
            DataError: an observation cannot be used; see `SensorVLAProcessor.check_observation`.
        """
        self.eval()
        for one in observations:
            processor.check_observation(one)
        pictures = [{view: np.asarray(one.views[view]) for view in one.views} for one in observations]
        batch = processor.encode_views([one.task for one in observations], pictures)
        return self.encode(**{name: value.to(self.device) for name, value in batch.items()})

    @torch.no_grad()
    def predict_actions(
        self: Any,
        processor: ProcessorMixin,
        observations: Sequence[Observation],
        *,
        features: Any = None,
        prefix: np.ndarray | None = None,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> np.ndarray:
        """Predict a chunk for each observation.

        Args:
            processor: the checkpoint's.
            observations: B of them.
            features: from `encode_observations`, of the same or an earlier moment; only state and sensor of the
                observations are read then.
            prefix: [B, K, A] first actions of the chunks, in the robot's units, that are already decided (real-time
                chunking); experts by flow matching only.
            steps: denoising steps; the expert's own number when not given.
            generator: of the noise.

        Returns:
            [B, H, A] float64, in the robot's units.

        Raises:
            DataError: an observation cannot be used, or the expert cannot continue a prefix.
            PredictionError: an action is not finite.
        """
        self.eval()
        if features is None:
            features = self.encode_observations(processor, observations)
        robot = {name: value.to(self.device) for name, value in processor.encode_robot(observations).items()}
        fused = self.fuse(features, **robot)
        options: dict[str, Any] = {"feature_mask": fused.mask, "generator": generator, "steps": steps}
        if prefix is not None and np.size(prefix):
            if not self.can_continue:
                raise DataError(
                    "this action expert cannot continue a prefix", got=self.config.expert["kind"], expected="flow"
                )
            options["prefix"] = self._normalised(processor, prefix)
        actions = processor.decode_actions(self.expert.sample(fused.tokens, **options))
        broken = np.argwhere(~np.isfinite(actions))
        if len(broken):
            row, step, channel = map(int, broken[0])
            raise PredictionError(
                "the model's actions are not finite", where=f"step {step}, channel {channel} of chunk {row}",
                got=float(actions[row, step, channel]), expected="finite numbers",
            )  # fmt: skip
        return actions

    @property
    def can_continue(self: Any) -> bool:
        """Whether `predict_actions` takes a prefix."""
        return self.config.expert["kind"] == "flow"

    def _normalised(self: Any, processor: ProcessorMixin, prefix: np.ndarray) -> Tensor:
        values = processor.normalizer("action").apply(np.asarray(prefix))
        return torch.from_numpy(values.astype(np.float32)).to(self.device)


def predict(model: PreTrainedModel, processor: ProcessorMixin, request: Mapping[str, Any]) -> dict[str, Any]:
    """Predict a chunk as `FAMILY.request` says.

    Returns:
        {"actions": H lists of A numbers in the robot's units, "names", "fps", "sensor": whether one was read}.

    Raises:
        DataError: something is missing or cannot be used.
        PredictionError: the model's actions are not finite.
    """
    observation = observation_of(processor, request)
    actions = model.predict_actions(processor, [observation], steps=request.get("denoising_steps"))[0]
    return reply(processor, observation, actions)


def observation_of(processor: ProcessorMixin, request: Mapping[str, Any]) -> Observation:
    """Return what a robot sees and feels from a request.

    Raises:
        DataError: something is missing or cannot be used.
    """
    if processor.state_dim and request.get("state") is None:
        raise DataError("the request is not complete", got="no state", expected=f"{processor.state_dim} numbers")
    names = list(request["views"])
    processor.check_views(names, "request")
    pixels = [read_picture(request["views"][name], f"view {name}") for name in names]
    given, sensor = request.get("sensor"), None
    if given:
        times_s = _numbers(given, "times_s", np.float64)
        sensor = SensorSamples(times_s, _numbers(given, "values", np.float32))
    now_s = request.get("time_s")
    if now_s is None:
        now_s = sensor.times_s[-1] if sensor is not None and sensor.times_s.size else 0.0
    return Observation(
        views=dict(zip(names, pixels, strict=True)),
        state=_numbers({"state": request.get("state") or []}, "state", np.float32),
        task=str(request["task"]),
        time_s=float(_numbers({"time_s": now_s}, "time_s", np.float64)),
        sensor=sensor,
    )


def reply(processor: ProcessorMixin, observation: Observation, actions: np.ndarray) -> dict[str, Any]:
    """Return a chunk [H, A] as the answer to a request; JSON-serialisable."""
    return {
        "actions": actions.tolist(),
        "names": processor.action["names"],
        "fps": processor.fps,
        "sensor": observation.sensor is not None and processor.sensor is not None,
    }


def _numbers(given: Any, name: str, dtype: Any) -> np.ndarray:
    """Return a part of the request as an array.

    Raises:
        DataError: it is missing, or not numbers.
    """
    if not isinstance(given, Mapping) or name not in given:
        raise DataError("the request is not complete", where="sensor", got=f"no {name}", expected="times_s and values")
    try:
        return np.asarray(given[name], dtype=dtype)
    except (TypeError, ValueError) as error:
        raise DataError("not numbers", where=f"{name} of the request", got=str(error)) from None
