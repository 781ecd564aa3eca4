"""Action expert by flow matching: integrate a learned velocity from noise to actions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hfvla.losses.action import masked_squared_error
from hfvla.nn.action_experts.base import DenoisingExpert, Generator
from hfvla.nn.noise import draw_normal, draw_uniform

__all__ = ["FlowExpert"]

_FIRST_TIME = 1e-3  # no training at time 0, where the path holds the actions themselves


class FlowExpert(DenoisingExpert):
    """Velocity `noise - actions` on the straight path `t * noise + (1 - t) * actions`; time runs 1 (noise) to 0.

    Training times are Beta(alpha, 1), which looks more often at noisy actions. `sample` takes Euler steps of equal
    size. With `max_prefix`, training shows the model chunks whose first actions are known, as it meets them when a
    robot still executes the last chunk (real-time chunking); `sample(prefix=...)` continues them.

    Args:
        feature_width (`int`): C.
        action_dim (`int`): A.
        horizon (`int`): H.
        time_alpha (`float`): alpha above.
        max_prefix (`int`): longest known prefix in training, 0..H-1. Lengths 0..max_prefix are drawn alike; known
            steps have time 0 and no loss.
        **options: see `DenoisingExpert`.

    Raises:
        ValueError: `max_prefix` or `time_alpha` is out of range.

    Source: Lipman et al. 2022, eq. 23; times as in Black et al. 2024 (pi0), appendix B. Prefixes in training follow
    Black et al. 2025, "Training-time action conditioning for efficient real-time chunking".
    """

    def __init__(
        self,
        feature_width: int,
        action_dim: int,
        horizon: int = 8,
        *,
        time_alpha: float = 1.5,
        max_prefix: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(feature_width, action_dim, horizon, **options)
        if not 0 <= max_prefix < horizon:
            raise ValueError(f"FlowExpert: max_prefix {max_prefix}; expected 0 to {horizon - 1}")
        if time_alpha <= 0:
            raise ValueError(f"FlowExpert: time_alpha {time_alpha}; expected more than 0")
        self.time_alpha, self.max_prefix = time_alpha, max_prefix

    def draw_times(self, count: int, like: Tensor, generator: Generator) -> Tensor:
        """Return [count] times in [0.001, 1), Beta(alpha, 1) by its inverse distribution function u ** (1 / alpha)."""
        uniform = draw_uniform((count,), like, generator, "times")
        return uniform.pow(1.0 / self.time_alpha) * (1.0 - _FIRST_TIME) + _FIRST_TIME

    def draw_prefix(self, mask: Tensor, generator: Generator) -> Tensor:
        """Return [B, H] bool, True at known steps; each sample keeps one valid step or more to predict."""
        lengths = (draw_uniform((len(mask),), mask, generator, "prefix") * (self.max_prefix + 1)).long()
        lengths = torch.minimum(lengths, (mask.sum(1) - 1).clamp(min=0))
        return torch.arange(self.horizon, device=mask.device) < lengths[:, None]

    def loss(
        self,
        features: Tensor,
        actions: Tensor,
        mask: Tensor,
        *,
        feature_mask: Tensor | None = None,
        generator: Generator = None,
    ) -> Tensor:
        """Squared error of the velocity of each sample, [B]; see `ActionExpert.loss`."""
        self.check_features(features, feature_mask)
        actions = self.clean_actions(features, actions, mask)
        noise = draw_normal(tuple(actions.shape), actions, generator)
        times = self.draw_times(len(actions), actions, generator)[:, None].expand(-1, self.horizon)  # [B, H]
        scored = mask
        if self.max_prefix:
            known = self.draw_prefix(mask, generator)
            times, scored = times.masked_fill(known, 0.0), mask & ~known
        noisy = times[..., None] * noise + (1.0 - times[..., None]) * actions
        memory = self.denoiser.decoder.remember(features, feature_mask)
        velocity = self.denoiser(noisy, times, memory, mask)
        return masked_squared_error(velocity, noise - actions, scored)

    @torch.no_grad()
    def sample(
        self,
        features: Tensor,
        *,
        feature_mask: Tensor | None = None,
        generator: Generator = None,
        steps: int | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """Actions by Euler steps, [B, H, A]; see `ActionExpert.sample`.

        Args:
            features (`Tensor`): [B, N, C].
            feature_mask (`Tensor`, *optional*): [B, N] bool; True = a valid token.
            generator (`torch.Generator` or `RowGenerator`, *optional*): of the noise.
            steps (`int`, *optional*): Euler steps.
            prefix (`Tensor`, *optional*): [B, P, A], first actions of the chunk, normalised; returned as they are.
                Up to `max_prefix` they are given to the model as known. A longer prefix than training saw is instead
                held on its own path from noise, which conditions the rest less well.
        """
        self.check_features(features, feature_mask)
        steps = self.check_steps(steps)
        shape = (len(features), self.horizon, self.action_dim)
        noise = draw_normal(shape, features, generator)
        known, length = self._place_prefix(prefix, noise)
        trained = length <= self.max_prefix
        memory = self.denoiser.decoder.remember(features, feature_mask)
        chunk = noise
        for step in range(steps):
            time = 1.0 - step / steps
            times = chunk.new_full(shape[:2], time)
            if length:
                path = known if trained else time * noise + (1.0 - time) * known
                chunk = torch.cat([path[:, :length], chunk[:, length:]], dim=1)
                times[:, :length] = 0.0 if trained else time
            chunk = chunk - self.denoiser(chunk, times, memory) / steps
        return torch.cat([known[:, :length], chunk[:, length:]], dim=1)

    def _place_prefix(self, prefix: Tensor | None, noise: Tensor) -> tuple[Tensor, int]:
        known = torch.zeros_like(noise)
        if prefix is None:
            return known, 0
        length = prefix.shape[1] if prefix.ndim == 3 else -1
        if tuple(prefix.shape) != (len(noise), length, self.action_dim) or length > self.horizon:
            raise ValueError(
                f"FlowExpert: prefix {tuple(prefix.shape)}; expected "
                f"({len(noise)}, 0 to {self.horizon}, {self.action_dim})"
            )
        known[:, :length] = prefix.float()
        return known, length
