"""The one place that weighs loss terms: for models in anybody's loop, and for the trainer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["weighted_sum"]


def weighted_sum(
    terms: Mapping[str, Tensor], weights: Mapping[str, float], shares: Mapping[str, Tensor | float] | None = None
) -> Tensor | None:
    """Return the sum of `weight * share * term` over the terms that weigh anything.

    Args:
        terms: unweighted [] scalars by name.
        weights: by name; a term without one, or with 0, has no part in the sum.
        shares: by name, of a term in its optimizer step; 1 when not given. With them, terms of weight 0 stay in the
            sum: a graph without a gradient.

    Returns:
        `Tensor`: [] scalar, or None without any term.
    """
    if shares is None:
        weighted = [weights[name] * term for name, term in terms.items() if weights.get(name)]
    else:
        weighted = [weights[name] * shares[name] * term for name, term in terms.items()]
    return torch.stack(weighted).sum() if weighted else None
