"""A trained model as the policies of this package use it: one observation in, one checked chunk out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hfvla.data.signals.observation import Observation
from hfvla.errors import DataError, HfvlaError, PredictionError
from hfvla.serve.policy.errors import PolicyStopped

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["ModelRunner", "PolicyFacts", "can_act"]


@dataclass(frozen=True)
class PolicyFacts:
    """What a robot must know of a policy.

    Attributes:
        horizon: actions in a chunk, H.
        action_dim: numbers of an action, A.
        window_s: seconds of the sensor that the policy looks at.
        fps: actions a second.
        views: names of the cameras; None where the processor does not tell.
        state_size: numbers of the robot's state; None where the processor does not tell.
        max_sensor_age_s: seconds that the newest sample may lie behind; None where the processor does not tell.
    """

    horizon: int
    action_dim: int
    window_s: float
    fps: float
    views: tuple[str, ...] | None = None
    state_size: int | None = None
    max_sensor_age_s: float | None = None

    @classmethod
    def of(cls, processor: ProcessorMixin) -> PolicyFacts:
        """Read the facts off a processor."""
        views, state = getattr(processor, "views", None), getattr(processor, "state_dim", None)
        age_s = (getattr(processor, "sensor", None) or {}).get("max_age_s")
        return cls(
            horizon=int(processor.horizon),
            action_dim=int(processor.action_dim),
            window_s=float(processor.window_s),
            fps=float(processor.fps),
            views=None if views is None else tuple(map(str, views)),
            state_size=None if state is None else int(state),
            max_sensor_age_s=None if age_s is None else float(age_s),
        )


def can_act(model: PreTrainedModel) -> bool:
    """Return whether a model, or a model class, predicts actions."""
    return callable(getattr(model, "predict_actions", None))


class ModelRunner:
    """Calls `predict_actions` and `encode_observations` of a model for one robot.

    Shapes: H horizon, A action channels, P actions of a prefix.

    Args:
        model: has `predict_actions(processor, observations, *, features, prefix, steps, generator) -> [B, H, A]` and
            `encode_observations(processor, observations) -> features`; `can_continue`, where it is true, says that its
            expert takes a prefix of actions that are already decided.
        processor: has `horizon`, `action_dim`, `window_s`, `fps` and `check_observation(observation)`; may have
            `views`, `state_dim`, and `sensor`, a mapping with `max_age_s`.
        denoising_steps: steps of a sampling expert; the model's own number when None.

    Raises:
        HfvlaError: the model predicts no actions, or fewer than one denoising step.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, denoising_steps: int | None = None) -> None:
        if not can_act(model):
            raise HfvlaError("this model predicts no actions", got=type(model).__name__, expected="predict_actions")
        if denoising_steps is not None and denoising_steps < 1:
            raise HfvlaError("denoising_steps", got=denoising_steps, expected="1 or more")
        self.model, self.processor, self.denoising_steps = model, processor, denoising_steps
        self.facts = PolicyFacts.of(processor)
        self.can_continue = bool(getattr(model, "can_continue", False))

    @staticmethod
    def generator(seed: int) -> Any:
        """Return a torch generator on the CPU, whose draws are the same on any device."""
        import torch

        return torch.Generator().manual_seed(seed)

    def check(self, observation: Observation) -> None:
        """Raise the processor's DataError unless the observation can be used."""
        self.processor.check_observation(observation)

    def encode(self, observation: Observation) -> Any:
        """Return the features of pictures and text."""
        return self.model.encode_observations(self.processor, [observation])

    def predict(
        self,
        observation: Observation,
        *,
        features: Any = None,
        prefix: np.ndarray | None = None,
        generator: Any = None,
    ) -> np.ndarray:
        """Return a chunk.

        Args:
            observation: now; with `features`, only its state and sensor are read.
            features: of `encode`, maybe of an earlier observation.
            prefix: [P, A], first actions of the chunk, physical units; only for a model that supports it.
            generator: of the sampling noise.

        Returns:
            [H, A], physical units.

        Raises:
            DataError: the model returns another shape.
            PolicyStopped: an action is not finite.
        """
        known = None if prefix is None else prefix[None]
        try:
            found = self.model.predict_actions(
                self.processor, [observation], features=features, prefix=known, steps=self.denoising_steps,
                generator=generator,
            )  # fmt: skip
        except PredictionError as error:
            raise PolicyStopped(error.what, where=error.where, got=error.got, expected=error.expected) from None
        chunks = np.asarray(found)
        expected = (1, self.facts.horizon, self.facts.action_dim)
        if chunks.shape != expected:
            raise DataError("actions of the model", got=chunks.shape, expected=expected)
        if not np.isfinite(chunks).all():
            step, channel = map(int, np.argwhere(~np.isfinite(chunks[0]))[0])
            raise PolicyStopped(
                "the model's actions are not finite", where=f"step {step}, channel {channel} of the chunk",
                got=float(chunks[0, step, channel]), expected="finite numbers",
            )  # fmt: skip
        return chunks[0]
