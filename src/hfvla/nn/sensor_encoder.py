"""Encoder of a window of high-rate sensor samples, in which a missing sensor never looks like a silent one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfvla.nn.noise import RowGenerator, draw_uniform
from hfvla.nn.transformer import TransformerLayer, fill_masked, sinusoidal_embedding

__all__ = ["SensorEncoder", "SensorFeatures", "drop_sensors"]

_KERNEL, _STRIDE, _PADDING = 3, 2, 1


class SensorFeatures(NamedTuple):
    """What the encoder gives; S tokens, D output width.

    Attributes:
        tokens (`Tensor`): [B, S, D], oldest first; a sample without a sensor holds the learned no-sensor token.
        token_mask (`Tensor`): [B, S] bool; True = valid. Without a sensor only the first token is.
        pooled (`Tensor`): [B, D], mean over valid tokens, or the no-sensor token.
        present (`Tensor`): [B] bool; True = a sensor was read, after sensor dropout.
    """

    tokens: Tensor
    token_mask: Tensor
    pooled: Tensor
    present: Tensor


def drop_sensors(present: Tensor, share: float, generator: torch.Generator | RowGenerator | None = None) -> Tensor:
    """Let each sensor go missing with probability `share`.

    Args:
        present (`Tensor`): [B] or [B, K] bool; a sample loses all K branches together.
        share (`float`): in 0..1.
        generator (`torch.Generator` or `RowGenerator`, *optional*): one number a sample is drawn from it, on its
            device; torch's own when not given.

    Returns:
        `Tensor`: as `present`.
    """
    keep = draw_uniform((len(present),), present, generator, "sensor") >= share
    return present & (keep if present.ndim == 1 else keep[:, None])


class ConvStack(nn.Module):
    """Conv1d (kernel 3, stride 2, padding 1), norm and GELU, once for each width.

    No norm looks at other samples of the batch, so padding a batch or its company changes nothing.

    Args:
        channels (`int`): C of the input.
        widths (`Sequence[int]`): output channels of each convolution.
        norm (`str`): "layer", over the channels of each step, or "group", over steps and channels of each group.
        groups (`int`): groups of "group"; must divide each width.

    Raises:
        ValueError: the norm is unknown, there is no width, or one that `groups` does not divide.
    """

    def __init__(self, channels: int, widths: Sequence[int], norm: str, groups: int) -> None:
        super().__init__()
        if norm not in {"layer", "group"}:
            raise ValueError(f"SensorEncoder: norm '{norm}'; expected 'layer' or 'group'")
        if not widths or (norm == "group" and any(width % groups for width in widths)):
            raise ValueError(f"SensorEncoder: conv widths {tuple(widths)}; expected multiples of {groups} groups")
        pairs = list(zip([channels, *widths[:-1]], widths, strict=True))
        self.convolutions = nn.ModuleList(nn.Conv1d(a, b, _KERNEL, _STRIDE, _PADDING) for a, b in pairs)
        self.norms = nn.ModuleList(nn.GroupNorm(groups, b) if norm == "group" else nn.LayerNorm(b) for _, b in pairs)
        self.per_step = norm == "layer"

    def forward(self, window: Tensor) -> Tensor:
        """Map [B, T, C] to [B, S, width]; S is T halved and rounded up, once for each convolution."""
        hidden = window.transpose(1, 2)  # [B, C, T]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            hidden = convolution(hidden)
            normed = norm(hidden.transpose(1, 2)).transpose(1, 2) if self.per_step else norm(hidden)
            hidden = F.gelu(normed)
        return hidden.transpose(1, 2)


class SensorEncoder(nn.Module):
    """Convolutions over time, transformer layers with positions, then a projection.

    Three things are told apart from data: a missing sample (all of `no_sensor`), a missing branch (its `no_branch`
    vector as tokens) and a missing point of the window (`no_point` as input). What stands in the tensors at such
    places has no influence, NaN included. Positions count back from the end of the window, which is now, so that
    windows of any length work.

    Shapes: B batch, T points, C channels, K branches, S tokens, D output width.

    Args:
        channels (`int`): C.
        output_width (`int`): D.
        conv_widths (`Sequence[int]`): of one branch; the last is also the width of the transformer layers.
        branches (`Sequence[int]`, *optional*): channels of each branch in order, e.g. (1, 1025) for a force and an
            optical line; each has convolutions of its own. One branch of all channels when not given.
        layers (`int`): transformer layers.
        heads (`int`): attention heads.
        feed_forward (`int`): width of the layers' hidden layer.
        dropout (`float`): in the transformer layers.
        norm (`str`): "layer" or "group", see `ConvStack`.
        groups (`int`): of the group norm.
        sensor_dropout (`float`): probability, in training, that a sample's sensor goes missing.

    Raises:
        ValueError: branches do not add up to C, the last width is odd, or a value is out of range.
    """

    def __init__(
        self,
        channels: int,
        output_width: int,
        *,
        conv_widths: Sequence[int] = (512, 1024, 1024, 1024),
        branches: Sequence[int] | None = None,
        layers: int = 2,
        heads: int = 8,
        feed_forward: int = 4096,
        dropout: float = 0.0,
        norm: Literal["layer", "group"] = "layer",
        groups: int = 8,
        sensor_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.branches = tuple(branches or (channels,))
        if sum(self.branches) != channels or min(self.branches) < 1:
            raise ValueError(f"SensorEncoder: branches {self.branches} do not add up to {channels} channels")
        if not 0.0 <= sensor_dropout <= 1.0:
            raise ValueError(f"SensorEncoder: sensor_dropout {sensor_dropout}; expected 0 to 1")
        self.stacks = nn.ModuleList(ConvStack(width, conv_widths, norm, groups) for width in self.branches)
        width = conv_widths[-1]
        if width % 2:
            raise ValueError(f"SensorEncoder: last conv width {width} is odd; positions need an even one")
        several = len(self.branches) > 1
        self.merge = nn.Linear(width * len(self.branches), width) if several else nn.Identity()
        self.layers = nn.ModuleList(TransformerLayer(width, heads, feed_forward, dropout) for _ in range(layers))
        self.output_norm, self.projection = nn.LayerNorm(width), nn.Linear(width, output_width)
        self.channels, self.sensor_dropout = channels, sensor_dropout
        self.no_point = nn.Parameter(torch.empty(channels))
        self.no_branch = nn.Parameter(torch.empty(len(self.branches), width)) if several else None
        self.no_sensor = nn.Parameter(torch.empty(output_width))
        self.reset_missing()

    def no_weight_decay(self) -> set[str]:
        """Return the vectors for what is missing: weight decay would pull them to zero."""
        return {"no_point", "no_branch", "no_sensor"}

    def reset_missing(self) -> None:
        """Draw new vectors for what is missing; a `PreTrainedModel` must call it in its `_init_weights`."""
        for vector in (self.no_point, self.no_branch, self.no_sensor):
            if vector is not None:
                nn.init.normal_(vector, std=0.5)

    def token_count(self, points: int) -> int:
        """Return S for a window of T points."""
        for _ in self.stacks[0].convolutions:
            points = (points + 2 * _PADDING - _KERNEL) // _STRIDE + 1
        return points

    def forward(
        self,
        window: Tensor,
        present: Tensor,
        point_mask: Tensor | None = None,
        generator: torch.Generator | RowGenerator | None = None,
    ) -> SensorFeatures:
        """Encode the windows.

        Args:
            window (`Tensor`): [B, T, C], normalised; the last point is the newest.
            present (`Tensor`): [B] bool, True = there is a sensor; or [B, K], one for each branch.
            point_mask (`Tensor`, *optional*): [B, T] bool; True = the point was measured.
            generator (`torch.Generator` or `RowGenerator`, *optional*): of the sensor dropout.

        Returns:
            `SensorFeatures`: of the projected tokens.

        Raises:
            ValueError: a shape differs.
        """
        present, point_mask = self._checked(window, present, point_mask)
        if self.training and self.sensor_dropout:
            present = drop_sensors(present, self.sensor_dropout, generator)
        points = point_mask & present.any(1, keepdim=True)  # [B, T]
        tokens = self._convolve(window, present, points)
        tokens = tokens + self._positions(tokens)
        token_mask = self._token_mask(points)
        for layer in self.layers:
            tokens = layer(tokens, token_mask)
        tokens = self.projection(self.output_norm(tokens))  # [B, S, D]
        read = token_mask.any(1)
        first = torch.arange(tokens.shape[1], device=tokens.device) == 0
        tokens = torch.where(read[:, None, None], tokens, self.no_sensor.to(tokens.dtype))
        token_mask = token_mask | (~read[:, None] & first)  # where nothing was read, no token is valid
        pooled = fill_masked(tokens, token_mask).sum(1) / token_mask.sum(1, keepdim=True)
        return SensorFeatures(tokens, token_mask, pooled, read)

    def _convolve(self, window: Tensor, present: Tensor, points: Tensor) -> Tensor:
        dtype = self.no_point.dtype
        window = torch.where(points[..., None], window.to(dtype), self.no_point)
        outputs, start = [], 0
        for number, (stack, width) in enumerate(zip(self.stacks, self.branches, strict=True)):
            there = present[:, number, None, None]
            part = window[..., start : start + width].masked_fill(~there, 0.0)
            hidden = stack(part)
            if self.no_branch is not None:
                hidden = torch.where(there, hidden, self.no_branch[number].to(hidden.dtype))
            outputs.append(hidden)
            start += width
        return self.merge(torch.cat(outputs, dim=-1))

    def _positions(self, tokens: Tensor) -> Tensor:
        age = torch.arange(tokens.shape[1] - 1, -1, -1, device=tokens.device)  # 0 is the newest token
        return sinusoidal_embedding(age, tokens.shape[2]).to(tokens.dtype)

    def _token_mask(self, points: Tensor) -> Tensor:
        """A token is valid when a measured point lies under its convolutions; [B, T] to [B, S]."""
        valid = points.float()[:, None]
        for _ in self.stacks[0].convolutions:
            valid = F.max_pool1d(valid, _KERNEL, _STRIDE, _PADDING)
        return valid[:, 0] > 0

    def _checked(self, window: Tensor, present: Tensor, point_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        if window.ndim != 3 or window.shape[2] != self.channels or not window.shape[1]:
            raise ValueError(f"SensorEncoder: window {tuple(window.shape)}; expected [B, T > 0, {self.channels}]")
        batch, count, shape = len(window), len(self.branches), tuple(present.shape)
        if shape not in ((batch,), (batch, count)):  # no set: a traced size has no hash
            raise ValueError(f"SensorEncoder: present {shape}; expected ({batch},) or ({batch}, {count})")
        if point_mask is None:
            point_mask = torch.ones(window.shape[:2], dtype=torch.bool, device=window.device)
        elif point_mask.shape != window.shape[:2]:
            expected = tuple(window.shape[:2])
            raise ValueError(f"SensorEncoder: point_mask {tuple(point_mask.shape)}; expected {expected}")
        present = present.bool()
        return (present[:, None].expand(-1, count) if present.ndim == 1 else present), point_mask.bool()
