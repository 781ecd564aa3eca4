"""Four ways to bring sensor tokens to the tokens of images and text."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from hfvla.errors import did_you_mean
from hfvla.nn.transformer import TransformerLayer, fill_masked

__all__ = ["FUSIONS", "FusedFeatures", "Fusion", "FusionKind"]

FusionKind = Literal["concat", "cross_attention", "gated", "none"]

FUSIONS = ("concat", "cross_attention", "gated", "none")


class FusedFeatures(NamedTuple):
    """Tokens after fusion.

    Attributes:
        tokens (`Tensor`): [B, M, D]; 0 where masked.
        mask (`Tensor`): [B, M] bool; True = valid.
    """

    tokens: Tensor
    mask: Tensor


class Fusion(nn.Module):
    """Tokens of the backbone, told about the sensor.

    - "concat": the projected sensor tokens follow the backbone's, each kind marked by a learned vector; M = N + S.
    - "cross_attention": a transformer layer in which backbone tokens attend to the sensor tokens; M = N. The sensor
      must be a sequence: over a single key a softmax is 1 whatever the query asks.
    - "gated": each token adds the projected mean of the sensor tokens, through a gate that sees both; M = N.
    - "none": the backbone's tokens as they are, and no parameters.

    Masked tokens change nothing in valid ones, whatever they hold (NaN too).

    Shapes: B batch, N backbone tokens, D their width, S sensor tokens, E their width.

    Args:
        kind (`str`): one of `FUSIONS`.
        width (`int`): D.
        sensor_width (`int`): E.
        heads (`int`): of "cross_attention"; D must be a multiple.
        feed_forward (`int`, *optional*): of "cross_attention"; 2 D when not given.
        dropout (`float`): of "cross_attention".

    Raises:
        ValueError: the kind is unknown.
    """

    def __init__(
        self,
        kind: FusionKind,
        width: int,
        sensor_width: int,
        *,
        heads: int = 8,
        feed_forward: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if kind not in FUSIONS:
            raise ValueError(f"unknown fusion '{kind}'. {did_you_mean(kind, FUSIONS)}")
        self.kind, self.width, self.sensor_width = kind, width, sensor_width
        if kind != "none":
            self.sensor_norm, self.sensor_projection = nn.LayerNorm(sensor_width), nn.Linear(sensor_width, width)
        if kind == "concat":
            self.kinds = nn.Parameter(torch.empty(2, width))
            self.reset_kinds()
        elif kind == "cross_attention":
            self.layer = TransformerLayer(width, heads, feed_forward or 2 * width, dropout, cross=True)
        elif kind == "gated":
            self.gate = nn.Linear(2 * width, width)

    def no_weight_decay(self) -> set[str]:
        """Return the marks of the two kinds of token: weight decay would pull them to zero."""
        return {"kinds"}

    def reset_kinds(self) -> None:
        """Draw new marks of the two kinds of token; a `PreTrainedModel` must call it in its `_init_weights`."""
        if self.kind == "concat":
            nn.init.normal_(self.kinds, std=0.02)

    def forward(
        self,
        features: Tensor,
        feature_mask: Tensor | None,
        sensor: Tensor | None = None,
        sensor_mask: Tensor | None = None,
    ) -> FusedFeatures:
        """Fuse.

        Args:
            features (`Tensor`): [B, N, D].
            feature_mask (`Tensor`, *optional*): [B, N] bool; True = valid. All valid when not given.
            sensor (`Tensor`, *optional*): [B, S, E]; "none" does not read it.
            sensor_mask (`Tensor`, *optional*): [B, S] bool; True = valid. All valid when not given.

        Returns:
            `FusedFeatures`: M = N + S for "concat", else N.

        Raises:
            ValueError: a shape differs, no sensor tokens, or one only for "cross_attention".
        """
        feature_mask = self._checked("features", features, feature_mask, self.width, len(features))
        features = fill_masked(features, feature_mask)
        if self.kind == "none":
            return FusedFeatures(features, feature_mask)
        if sensor is None:
            raise ValueError(f"Fusion: '{self.kind}' needs sensor tokens; a missing sensor is a token of its own")
        sensor_mask = self._checked("sensor", sensor, sensor_mask, self.sensor_width, len(features))
        sensor = fill_masked(sensor, sensor_mask).to(self.sensor_projection.weight.dtype)
        projected = self.sensor_projection(self.sensor_norm(sensor))  # [B, S, D]
        fuse = {"concat": self._concat, "cross_attention": self._attend, "gated": self._gated}[self.kind]
        tokens, mask = fuse(features.to(projected.dtype), feature_mask, projected, sensor_mask)
        return FusedFeatures(fill_masked(tokens, mask), mask)

    def _concat(self, features: Tensor, mask: Tensor, sensor: Tensor, sensor_mask: Tensor) -> tuple[Tensor, Tensor]:
        tokens = torch.cat([features + self.kinds[0], sensor + self.kinds[1]], dim=1)
        return tokens, torch.cat([mask, sensor_mask], dim=1)

    def _attend(self, features: Tensor, mask: Tensor, sensor: Tensor, sensor_mask: Tensor) -> tuple[Tensor, Tensor]:
        if sensor.shape[1] < 2:
            raise ValueError(
                "Fusion: 'cross_attention' over 1 sensor token ignores its query; give a longer window, or use 'gated'"
            )
        return self.layer(features, mask, self.layer.remember(sensor), sensor_mask), mask

    def _gated(self, features: Tensor, mask: Tensor, sensor: Tensor, sensor_mask: Tensor) -> tuple[Tensor, Tensor]:
        count = sensor_mask.sum(1, keepdim=True).clamp(min=1)
        pooled = fill_masked(sensor, sensor_mask).sum(1) / count  # [B, D]
        beside = pooled[:, None].expand_as(features)
        return features + self.gate(torch.cat([features, beside], dim=-1)).sigmoid() * beside, mask

    def _checked(self, name: str, tokens: Tensor, mask: Tensor | None, width: int, batch: int) -> Tensor:
        if tokens.ndim != 3 or len(tokens) != batch or tokens.shape[2] != width or not tokens.shape[1]:
            raise ValueError(f"Fusion: {name} {tuple(tokens.shape)}; expected ({batch}, 1 or more, {width})")
        if mask is None:
            return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        if mask.shape != tokens.shape[:2]:
            raise ValueError(f"Fusion: {name} mask {tuple(mask.shape)}; expected {tuple(tokens.shape[:2])}")
        return mask.bool()
