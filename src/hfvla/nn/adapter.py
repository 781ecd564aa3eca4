"""A small head from a tower's features to a shared space."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Adapter", "GatedLayerNorm", "SkipProjection"]


class Adapter(nn.Module):
    """Linear - ReLU - Dropout - Linear, which can be given a skip path and a LayerNorm without changing its output.

    The skip projection starts at 0, and the LayerNorm has a gate g that starts at 0: `y + g * (LayerNorm(y) - y)`. So
    the upgraded adapter computes what the plain one does until it is trained. A `PreTrainedModel` initialises linear
    layers itself, and must call `reset` of `SkipProjection` and `GatedLayerNorm` in its `_init_weights`, which is not
    asked about modules without parameters of their own, such as this one.

    Args:
        in_features (`int`): C, width of the tower.
        out_features (`int`): D, width of the shared space and of the hidden layer.
        dropout (`float`): before the last layer.
        skip (`bool`): add a linear path beside both layers.
        layer_norm (`bool`): add a gated LayerNorm after them.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int = 256,
        dropout: float = 0.1,
        skip: bool = False,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.up = nn.Linear(in_features, out_features)
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(out_features, out_features)
        self.skip = SkipProjection(in_features, out_features) if skip else None
        self.norm = GatedLayerNorm(out_features) if layer_norm else None
        self.reset_upgrade()

    def reset_upgrade(self) -> None:
        """Put what `skip` and `layer_norm` added back to where it changes nothing."""
        if self.skip is not None:
            self.skip.reset()
        if self.norm is not None:
            self.norm.reset()

    def forward(self, features: Tensor) -> Tensor:
        """Map [..., C] to [..., D]."""
        hidden = self.down(self.dropout(self.up(features).relu()))
        if self.skip is not None:
            hidden = hidden + self.skip(features)
        return hidden if self.norm is None else self.norm(hidden)


class SkipProjection(nn.Linear):
    """Linear layer without bias whose weights start at 0.

    Args:
        in_features (`int`): C.
        out_features (`int`): D.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def reset(self) -> None:
        """Put the weights to 0."""
        nn.init.zeros_(self.weight)


class GatedLayerNorm(nn.Module):
    """`y + g * (LayerNorm(y) - y)` with a learned gate that starts at 0.

    Args:
        width (`int`): D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Parameter(self.norm.weight.new_zeros(1))

    def reset(self) -> None:
        """Close the gate."""
        nn.init.zeros_(self.gate)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        return hidden + self.gate * (self.norm(hidden) - hidden)
