"""Action expert by diffusion, on the schedulers of the package diffusers."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

from hfvla.errors import MissingExtraError
from hfvla.losses.action import masked_squared_error
from hfvla.nn.action_experts.base import DenoisingExpert, Generator
from hfvla.nn.noise import RowGenerator, draw_normal, draw_uniform

__all__ = ["DiffusionExpert"]

Prediction = Literal["epsilon", "v_prediction"]
Sampler = Literal["ddim", "ddpm"]

_PREDICTIONS, _SAMPLERS = ("epsilon", "v_prediction"), ("ddim", "ddpm")


class DiffusionExpert(DenoisingExpert):
    """Denoise a chunk along a cosine schedule (s = 0.008), predicting the noise or the velocity v.

    At the last training step hardly any signal is left (alpha_bar 2e-7 of 100 steps), so an error of an epsilon
    prediction reaches the actions 2,000 times as large: give such a model a `clip_range` that holds its normalised
    actions with room to spare. A v prediction needs none.

    Args:
        feature_width (`int`): C.
        action_dim (`int`): A.
        horizon (`int`): H.
        train_steps (`int`): steps of the schedule.
        prediction (`str`): "epsilon" or "v_prediction".
        sampler (`str`): "ddim" (no noise added on the way) or "ddpm".
        clip_range (`float`, *optional*): clamp each estimate of the clean actions in `sample` to +- this.
        **options: see `DenoisingExpert`.

    Raises:
        MissingExtraError: diffusers is not installed.
        ValueError: `prediction` or `sampler` is unknown.

    Source: Ho et al. 2020 (DDPM), Song et al. 2020 (DDIM), Nichol and Dhariwal 2021, eq. 17 (schedule), Salimans and
    Ho 2022 (v); for actions Chi et al. 2023. Differs: sampling starts at the last step also with few steps ("trailing"
    of Lin et al. 2023).
    """

    def __init__(
        self,
        feature_width: int,
        action_dim: int,
        horizon: int = 8,
        *,
        train_steps: int = 100,
        prediction: Prediction = "v_prediction",
        sampler: Sampler = "ddim",
        clip_range: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(feature_width, action_dim, horizon, **options)
        if find_spec("diffusers") is None:
            raise MissingExtraError("diffusers", "actions", "the diffusion action expert")
        for name, given, known in (("prediction", prediction, _PREDICTIONS), ("sampler", sampler, _SAMPLERS)):
            if given not in known:
                raise ValueError(f"DiffusionExpert: {name} '{given}'; expected one of {', '.join(known)}")
        self.train_steps, self.prediction, self.sampler, self.clip_range = train_steps, prediction, sampler, clip_range
        self._schedulers: dict[str, Any] = {}

    def scheduler(self, sampler: Sampler) -> Any:
        """Return the `DDIMScheduler` or `DDPMScheduler` of this expert, built at first use.

        Not in `__init__`: there a model may be under construction on the meta device, and its tables would be empty.
        """
        if sampler not in self._schedulers:
            from diffusers import DDIMScheduler, DDPMScheduler

            options: dict[str, Any] = {
                "num_train_timesteps": self.train_steps,
                "beta_schedule": "squaredcos_cap_v2",
                "prediction_type": self.prediction,
                "timestep_spacing": "trailing",
                "clip_sample": self.clip_range is not None,
                "clip_sample_range": self.clip_range or 1.0,
            }
            with torch.device("cpu"):
                build = DDIMScheduler if sampler == "ddim" else DDPMScheduler
                self._schedulers[sampler] = build(**options)
        return self._schedulers[sampler]

    def loss(
        self,
        features: Tensor,
        actions: Tensor,
        mask: Tensor,
        *,
        feature_mask: Tensor | None = None,
        generator: Generator = None,
    ) -> Tensor:
        """Squared error of the predicted noise or velocity of each sample, [B]; see `ActionExpert.loss`."""
        self.check_features(features, feature_mask)
        actions = self.clean_actions(features, actions, mask)
        noise = draw_normal(tuple(actions.shape), actions, generator)
        uniform = draw_uniform((len(actions),), actions, generator, "times")
        steps = (uniform * self.train_steps).long().clamp(max=self.train_steps - 1)  # [B]
        schedule = self.scheduler("ddpm")
        noisy = schedule.add_noise(actions, noise, steps)
        target = noise if self.prediction == "epsilon" else schedule.get_velocity(actions, noise, steps)
        memory = self.denoiser.decoder.remember(features, feature_mask)
        return masked_squared_error(self.denoiser(noisy, self._time(steps), memory, mask), target, mask)

    @torch.no_grad()
    def sample(
        self,
        features: Tensor,
        *,
        feature_mask: Tensor | None = None,
        generator: Generator = None,
        steps: int | None = None,
    ) -> Tensor:
        """Actions by `steps` of the sampler, [B, H, A]; see `ActionExpert.sample`."""
        self.check_features(features, feature_mask)
        steps = self.check_steps(steps, self.train_steps)
        schedule = self.scheduler(self.sampler)
        schedule.set_timesteps(steps)
        memory = self.denoiser.decoder.remember(features, feature_mask)
        chunk = draw_normal((len(features), self.horizon, self.action_dim), features, generator)
        drawn = generator.generators("steps") if isinstance(generator, RowGenerator) else generator
        for step in schedule.timesteps:
            times = self._time(step.to(features.device)).expand(len(features))
            predicted = self.denoiser(chunk, times, memory)
            chunk = schedule.step(predicted, step, chunk, generator=drawn).prev_sample
        return chunk

    def _time(self, steps: Tensor) -> Tensor:
        return (steps + 1) / self.train_steps  # 1 is noise, as in the denoiser
