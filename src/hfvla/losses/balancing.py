"""How several loss terms share a model: learned weights, and gradients that do not undo each other.

Everything here is arithmetic on T losses and on the T x T matrix of dot products of their gradients (the Gram
matrix), so it costs nothing beside a step and can be checked by hand. `hfvla.training.trainer.balance.building` uses
it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "cosine_matrix",
    "gradnorm_targets",
    "gradnorm_update",
    "pcgrad_coefficients",
    "pcgrad_orders",
    "uncertainty_gradient",
    "uncertainty_loss",
]


def uncertainty_loss(losses: Tensor, log_variances: Tensor, weights: Tensor) -> Tensor:
    """Weigh each loss by a learned variance: sum of `w * (exp(-s) * L + s)`.

    At its best `s = log L`, a term counts `w`, whatever the size of L; losses must be above 0 (else s has no minimum).

    Shapes: T loss terms.

    Args:
        losses (`Tensor`): [T].
        log_variances (`Tensor`): [T], s; start at 0, where this is the plain weighted sum.
        weights (`Tensor`): [T], w; fixed weights on top, 0 leaves a term out.

    Returns:
        `Tensor`: [] scalar.

    Raises:
        ValueError: shapes differ.

    Source: Kendall, Gal & Cipolla 2018, eq. 7 and 10. Differs: one form for every term, twice theirs for regression
    (`L / (2 sigma^2) + log sigma`); fixed weights outside.
    """
    _check_shapes("uncertainty_loss", losses, log_variances, weights)
    return (weights * (torch.exp(-log_variances) * losses + log_variances)).sum()


def uncertainty_gradient(losses: Tensor, log_variances: Tensor, weights: Tensor) -> Tensor:
    """Return the gradient of `uncertainty_loss` with respect to the log-variances: `w * (1 - exp(-s) * L)`.

    Args:
        losses (`Tensor`): [T].
        log_variances (`Tensor`): [T].
        weights (`Tensor`): [T].

    Returns:
        `Tensor`: [T].

    Raises:
        ValueError: shapes differ.
    """
    _check_shapes("uncertainty_gradient", losses, log_variances, weights)
    return weights * (1 - torch.exp(-log_variances) * losses)


def gradnorm_targets(norms: Tensor, ratios: Tensor, alpha: float) -> Tensor:
    """Return the gradient norm that each term should have: the mean norm times its relative training rate to alpha.

    Args:
        norms (`Tensor`): [T], weighted gradient norms.
        ratios (`Tensor`): [T], loss over first loss; high = has learned little.
        alpha (`float`): 0 makes all norms equal; higher pulls harder towards terms that lag behind.

    Returns:
        `Tensor`: [T].
    """
    rates = ratios.clamp_min(1e-8)
    return norms.mean() * (rates / rates.mean()) ** alpha


def gradnorm_update(weights: Tensor, norms: Tensor, ratios: Tensor, alpha: float = 1.5, rate: float = 0.025) -> Tensor:
    """Return the weights after one step towards `gradnorm_targets`; their sum stays the number of terms.

    Shapes: T loss terms.

    Args:
        weights (`Tensor`): [T], above 0.
        norms (`Tensor`): [T], gradient norms of the *unweighted* terms at the shared parameters.
        ratios (`Tensor`): [T], loss over first loss.
        alpha (`float`): see `gradnorm_targets`.
        rate (`float`): step size.

    Returns:
        `Tensor`: [T], above 0, sum T.

    Raises:
        ValueError: shapes differ, or a weight is not above 0.

    Source: Chen et al. 2018, eq. 2 and algorithm 1: descent on `sum |w_i n_i - target_i|`, targets held constant.
    Differs: the step is taken in log w and divided by the mean norm, so that weights stay positive and `rate` does not
    depend on the scale of the losses.
    """
    _check_shapes("gradnorm_update", weights, norms, ratios)
    if bool((weights <= 0).any()):
        raise ValueError(f"gradnorm_update: weights must be above 0; got {weights.tolist()}")
    weighted = weights * norms
    mean = weighted.mean()
    if mean > 0:
        gradient = weighted * torch.sign(weighted - gradnorm_targets(weighted, ratios, alpha)) / mean
        weights = weights * torch.exp(-rate * gradient)
    return weights * (len(weights) / weights.sum())


def pcgrad_orders(count: int, seed: int, step: int) -> list[list[int]]:
    """Return, for each term, the others in the order in which it meets them; the same for the same seed and step."""
    draw = random.Random(f"{seed}:{step}")  # not the global stream: that belongs to dropout and the data
    orders = []
    for term in range(count):
        others = [other for other in range(count) if other != term]
        draw.shuffle(others)
        orders.append(others)
    return orders


def pcgrad_coefficients(gram: Tensor, orders: Sequence[Sequence[int]]) -> Tensor:
    """Project each gradient off those it conflicts with; return how often each original gradient counts in the sum.

    The projected gradients are combinations of the original ones, so their sum is `coefficients @ gradients`, and the
    Gram matrix is all that finding it needs.

    Shapes: T loss terms.

    Args:
        gram (`Tensor`): [T, T], `gradients @ gradients.T`.
        orders (`Sequence[Sequence[int]]`): for each term the others, in the order it is projected off them.

    Returns:
        `Tensor`: [T] float64; all 1 where no two gradients conflict.

    Raises:
        ValueError: the matrix is not square, or there is not one order a term.

    Source: Yu et al. 2020 (PCGrad), algorithm 1.
    """
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or len(orders) != len(gram):
        raise ValueError(f"pcgrad_coefficients: {tuple(gram.shape)} matrix and {len(orders)} orders do not fit")
    gram = gram.detach().double().cpu()
    total = torch.zeros(len(gram), dtype=torch.float64)
    for term, others in enumerate(orders):
        mixture = torch.zeros_like(total)
        mixture[term] = 1.0
        for other in others:
            product = mixture @ gram[:, other]
            if product < 0:
                mixture[other] -= product / gram[other, other]
        total += mixture
    return total


def cosine_matrix(gram: Tensor) -> Tensor:
    """Return the cosines between gradients.

    Args:
        gram (`Tensor`): [T, T], `gradients @ gradients.T`.

    Returns:
        `Tensor`: [T, T] float64 in [-1, 1]; NaN where a gradient is 0.
    """
    gram = gram.detach().double().cpu()
    norms = gram.diagonal().clamp_min(0).sqrt()
    return (gram / norms[:, None] / norms[None, :]).clamp(-1, 1)


def _check_shapes(name: str, *tensors: Tensor) -> None:
    if len({tuple(tensor.shape) for tensor in tensors}) > 1 or tensors[0].ndim != 1:
        raise ValueError(f"{name}: expected vectors of one length; got {[tuple(tensor.shape) for tensor in tensors]}")
