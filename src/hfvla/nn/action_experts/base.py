"""The interface of every action expert, and its checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from hfvla.nn.action_experts.decoder import ActionDenoiser, HorizonDecoder
from hfvla.nn.noise import RowGenerator
from hfvla.nn.transformer import fill_masked

__all__ = ["ActionExpert", "DenoisingExpert", "Generator"]

Generator: TypeAlias = torch.Generator | RowGenerator | None
"""What noise is drawn from: one stream for a batch, one for each row, or torch's own."""


class ActionExpert(nn.Module, ABC):
    """From feature tokens to a chunk of normalised actions.

    A masked step or a masked feature token has no influence on the loss or on a sample, whatever it holds (NaN too).
    Actions are neither normalised nor clamped here: see `hfvla.data.signals.normalize`.

    Shapes: B batch, N feature tokens, C feature width, H horizon steps, A action channels.

    Args:
        feature_width (`int`): C.
        action_dim (`int`): A.
        horizon (`int`): H.
    """

    def __init__(self, feature_width: int, action_dim: int, horizon: int) -> None:
        super().__init__()
        self.feature_width, self.action_dim, self.horizon = feature_width, action_dim, horizon

    @abstractmethod
    def loss(
        self,
        features: Tensor,
        actions: Tensor,
        mask: Tensor,
        *,
        feature_mask: Tensor | None = None,
        generator: Generator = None,
    ) -> Tensor:
        """Loss of each sample.

        Args:
            features (`Tensor`): [B, N, C].
            actions (`Tensor`): [B, H, A], normalised.
            mask (`Tensor`): [B, H] bool; True = a valid step.
            feature_mask (`Tensor`, *optional*): [B, N] bool; True = a valid token.
            generator (`torch.Generator` or `RowGenerator`, *optional*): of noise and times; torch's own when not
                given.

        Returns:
            `Tensor`: [B] float32, averaged over valid steps and channels; 0 for a sample without a valid step.

        Raises:
            ValueError: a shape differs.
        """

    @abstractmethod
    def sample(
        self,
        features: Tensor,
        *,
        feature_mask: Tensor | None = None,
        generator: Generator = None,
        steps: int | None = None,
    ) -> Tensor:
        """Actions for each sample, without a graph.

        Args:
            features (`Tensor`): [B, N, C].
            feature_mask (`Tensor`, *optional*): [B, N] bool; True = a valid token.
            generator (`torch.Generator` or `RowGenerator`, *optional*): of the noise; torch's own when not given.
            steps (`int`, *optional*): of denoising; the expert's own number when not given.

        Returns:
            `Tensor`: [B, H, A] float32, normalised.

        Raises:
            ValueError: a shape differs, or `steps` is out of range.
        """

    def forward(self, features: Tensor, actions: Tensor, mask: Tensor, **options: Any) -> Tensor:
        """`loss`, for wrappers that know `forward` only."""
        return self.loss(features, actions, mask, **options)

    def check_features(self, features: Tensor, feature_mask: Tensor | None) -> None:
        """Raise a ValueError unless features are [B, N, C] and their mask [B, N]."""
        name = type(self).__name__
        if features.ndim != 3 or features.shape[2] != self.feature_width or not features.shape[1]:
            raise ValueError(f"{name}: features {tuple(features.shape)}; expected [B, N > 0, {self.feature_width}]")
        if feature_mask is not None and feature_mask.shape != features.shape[:2]:
            expected = tuple(features.shape[:2])
            raise ValueError(f"{name}: feature_mask {tuple(feature_mask.shape)}; expected {expected}")

    def clean_actions(self, features: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
        """Return actions as float32 with 0 at masked steps; raise a ValueError unless shapes fit."""
        expected = (len(features), self.horizon, self.action_dim)
        if tuple(actions.shape) != expected or tuple(mask.shape) != expected[:2]:
            raise ValueError(
                f"{type(self).__name__}: actions {tuple(actions.shape)} with mask {tuple(mask.shape)}; "
                f"expected {expected} and {expected[:2]}"
            )
        return fill_masked(actions.float(), mask)


class DenoisingExpert(ActionExpert):
    """An expert that samples by denoising step after step.

    Args:
        feature_width (`int`): C.
        action_dim (`int`): A.
        horizon (`int`): H.
        width (`int`, *optional*): W of the decoder; C when not given. Even, and a multiple of `heads`.
        layers (`int`): decoder layers.
        heads (`int`): attention heads.
        feed_forward (`int`): width of the decoder's hidden layers.
        dropout (`float`): in the decoder.
        inference_steps (`int`): denoising steps of `sample` when none are given.
    """

    def __init__(
        self,
        feature_width: int,
        action_dim: int,
        horizon: int = 8,
        *,
        width: int | None = None,
        layers: int = 4,
        heads: int = 8,
        feed_forward: int = 4096,
        dropout: float = 0.0,
        inference_steps: int = 10,
    ) -> None:
        super().__init__(feature_width, action_dim, horizon)
        width = width or feature_width
        decoder = HorizonDecoder(feature_width, width, layers, heads, feed_forward, dropout)
        self.denoiser = ActionDenoiser(decoder, width, action_dim, horizon)
        self.inference_steps = inference_steps

    def check_steps(self, steps: int | None, most: int | None = None) -> int:
        """Return the number of denoising steps; raise a ValueError unless it is in 1..most."""
        steps = self.inference_steps if steps is None else steps
        if steps < 1 or (most is not None and steps > most):
            limit = "1 or more" if most is None else f"1 to {most}"
            raise ValueError(f"{type(self).__name__}: {steps} denoising steps; expected {limit}")
        return steps
