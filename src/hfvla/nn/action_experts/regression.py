"""Action expert that predicts the chunk in one pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hfvla.losses.action import masked_squared_error
from hfvla.nn.action_experts.base import ActionExpert, Generator
from hfvla.nn.action_experts.decoder import HorizonDecoder

__all__ = ["RegressionExpert"]


class RegressionExpert(ActionExpert):
    """One learned query a horizon step reads the features; a linear layer gives the action.

    The decoder sees the queries and the features only: actions of a batch enter the squared error and nothing else.

    Args:
        feature_width (`int`): C.
        action_dim (`int`): A.
        horizon (`int`): H, number of queries.
        width (`int`, *optional*): W of the decoder; C when not given. A multiple of `heads`.
        layers (`int`): decoder layers.
        heads (`int`): attention heads.
        feed_forward (`int`): width of the decoder's hidden layers.
        dropout (`float`): in the decoder.
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
    ) -> None:
        super().__init__(feature_width, action_dim, horizon)
        width = width or feature_width
        self.decoder = HorizonDecoder(feature_width, width, layers, heads, feed_forward, dropout)
        self.queries = nn.Parameter(torch.empty(horizon, width))
        self.output = nn.Linear(width, action_dim)
        self.reset_queries()

    def no_weight_decay(self) -> set[str]:
        """Return the queries of the horizon: weight decay would pull them to zero."""
        return {"queries"}

    def reset_queries(self) -> None:
        """Draw new queries; a `PreTrainedModel` must call it in its `_init_weights`."""
        nn.init.normal_(self.queries, std=0.5)

    def predict(self, features: Tensor, *, feature_mask: Tensor | None = None) -> Tensor:
        """Return [B, H, A] float32 with a graph; arguments as in `sample`."""
        self.check_features(features, feature_mask)
        queries = self.queries.expand(len(features), -1, -1)
        return self.output(self.decoder(queries, self.decoder.remember(features, feature_mask))).float()

    def loss(
        self,
        features: Tensor,
        actions: Tensor,
        mask: Tensor,
        *,
        feature_mask: Tensor | None = None,
        generator: Generator = None,
    ) -> Tensor:
        """Squared error of each sample, [B]; see `ActionExpert.loss`. The generator is not used."""
        predicted = self.predict(features, feature_mask=feature_mask)
        return masked_squared_error(predicted, self.clean_actions(features, actions, mask), mask)

    @torch.no_grad()
    def sample(
        self,
        features: Tensor,
        *,
        feature_mask: Tensor | None = None,
        generator: Generator = None,
        steps: int | None = None,
    ) -> Tensor:
        """Predicted actions, [B, H, A]; see `ActionExpert.sample`. Generator and steps are not used."""
        return self.predict(features, feature_mask=feature_mask)
