"""What the action experts share: a decoder of horizon tokens that read features, and a denoiser built on it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hfvla.nn.transformer import KeyValue, TransformerLayer, fill_masked, sinusoidal_embedding

__all__ = ["ActionDenoiser", "DecoderMemory", "HorizonDecoder"]

_TIME_SCALE = 1000.0  # times in 0..1 spread over the wavelengths of the sinusoids


class DecoderMemory(NamedTuple):
    """Features, projected once for every layer.

    Attributes:
        layers (`tuple[KeyValue, ...]`): one a layer.
        mask (`Tensor`, *optional*): [B, N] bool; True = valid.
    """

    layers: tuple[KeyValue, ...]
    mask: Tensor | None


class HorizonDecoder(nn.Module):
    """Transformer decoder: tokens of the horizon attend to each other and to the features.

    Shapes: B batch, H horizon steps, N feature tokens, C feature width, W width.

    Args:
        feature_width (`int`): C.
        width (`int`): W.
        layers (`int`): number of layers.
        heads (`int`): attention heads; W must be a multiple.
        feed_forward (`int`): width of the hidden layers.
        dropout (`float`): see `TransformerLayer`.
    """

    def __init__(
        self, feature_width: int, width: int, layers: int, heads: int, feed_forward: int, dropout: float
    ) -> None:
        super().__init__()
        self.feature_norm, self.feature_projection = nn.LayerNorm(feature_width), nn.Linear(feature_width, width)
        self.layers = nn.ModuleList(
            TransformerLayer(width, heads, feed_forward, dropout, cross=True) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def remember(self, features: Tensor, feature_mask: Tensor | None = None) -> DecoderMemory:
        """Project features [B, N, C] with their mask [B, N] for every layer; masked tokens count as 0."""
        features = features.to(self.feature_projection.weight.dtype)
        if feature_mask is not None:
            features = fill_masked(features, feature_mask)
        projected = self.feature_projection(self.feature_norm(features))
        return DecoderMemory(tuple(layer.remember(projected) for layer in self.layers), feature_mask)

    def forward(self, tokens: Tensor, memory: DecoderMemory, token_mask: Tensor | None = None) -> Tensor:
        """Map [B, H, W] to [B, H, W]; token_mask [B, H] is True where a step is valid."""
        for layer, read in zip(self.layers, memory.layers, strict=True):
            tokens = layer(tokens, token_mask, read, memory.mask)
        return self.norm(tokens)


class ActionDenoiser(nn.Module):
    """Estimate of a noise or velocity for noisy actions, at a time for each sample or each step.

    Args:
        decoder (`HorizonDecoder`): reads the features.
        width (`int`): W of the decoder; even.
        action_dim (`int`): A.
        horizon (`int`): H; each step has a learned position.
    """

    def __init__(self, decoder: HorizonDecoder, width: int, action_dim: int, horizon: int) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"ActionDenoiser: width {width} is odd; its time embedding needs an even one")
        self.decoder, self.width = decoder, width
        self.action_input, self.action_output = nn.Linear(action_dim, width), nn.Linear(width, action_dim)
        self.time_mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.positions = nn.Parameter(torch.empty(horizon, width))
        self.reset_positions()

    def no_weight_decay(self) -> set[str]:
        """Return the horizon positions: weight decay would pull them to zero."""
        return {"positions"}

    def reset_positions(self) -> None:
        """Draw new horizon positions; a `PreTrainedModel` must call it in its `_init_weights`."""
        nn.init.normal_(self.positions, std=0.5)

    def forward(self, noisy: Tensor, time: Tensor, memory: DecoderMemory, mask: Tensor | None = None) -> Tensor:
        """Estimate for each step.

        Args:
            noisy (`Tensor`): [B, H, A]; finite, also where masked.
            time (`Tensor`): [B] or [B, H] in 0..1; 1 is noise.
            memory (`DecoderMemory`): from `decoder.remember`.
            mask (`Tensor`, *optional*): [B, H] bool; True = valid. Masked steps are not attended to.

        Returns:
            `Tensor`: [B, H, A] float32.
        """
        weight = self.action_input.weight
        times = time if time.ndim == 2 else time[:, None]
        embedded = self.time_mlp(sinusoidal_embedding(times * _TIME_SCALE, self.width).to(weight.dtype))
        tokens = self.action_input(noisy.to(weight.dtype)) + self.positions + embedded  # [B, H, W]
        return self.action_output(self.decoder(tokens, memory, mask)).float()
