"""Contrastive losses between paired embeddings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfvla.losses.gathering import gather_with_gradient
from hfvla.losses.precision import full_precision

__all__ = [
    "FeatureQueue",
    "bounded_temperature",
    "cosine_logits",
    "group_infonce",
    "same_group",
    "symmetric_infonce",
]

_EXCLUDED = -1e30  # a logit that counts nothing; finite, so that a row of nothing else has a gradient of 0 and not NaN


def bounded_temperature(log_temperature: Tensor, least: float, most: float) -> Tensor:
    """Return the temperature of a learned logarithm, kept within bounds so that it can always come back from them.

    Where it trains, the parameter itself is clamped (as open_clip clamps its logit scale after each step): a clamp in
    the graph would have no gradient beyond the bound, and the temperature would stay there for good.

    Args:
        log_temperature (`Tensor`): [] parameter.
        least (`float`): above 0.
        most (`float`): above `least`.

    Returns:
        `Tensor`: [] scalar.
    """
    if log_temperature.requires_grad and torch.is_grad_enabled():
        with torch.no_grad():
            log_temperature.clamp_(math.log(least), math.log(most))
        return log_temperature.exp()
    return log_temperature.exp().clamp(least, most)


def cosine_logits(first: Tensor, second: Tensor, temperature: Tensor | float) -> Tensor:
    """Cosine similarity over the temperature, in float32 also under autocast.

    Args:
        first (`Tensor`): [M, D], any norm.
        second (`Tensor`): [N, D], any norm.
        temperature (`Tensor` or `float`): positive scalar.

    Returns:
        `Tensor`: [M, N] float32.
    """
    with full_precision(first):
        return F.normalize(first.float(), dim=-1) @ F.normalize(second.float(), dim=-1).T / temperature


def symmetric_infonce(first: Tensor, second: Tensor, temperature: Tensor | float) -> Tensor:
    """InfoNCE both ways over the batch of all processes; row i of both is a pair.

    Each process sums over the gathered batch, so that the mean over processes equals one process with the whole batch.
    Processes may bring different numbers of pairs, some none, but not all of them none.

    Shapes: B batch, D width.

    Args:
        first (`Tensor`): [B, D], any norm.
        second (`Tensor`): [B, D], any norm.
        temperature (`Tensor` or `float`): positive scalar.

    Returns:
        `Tensor`: [] scalar, nats.

    Raises:
        ValueError: shapes differ.

    Source: Radford et al. 2021 (CLIP).
    """
    _check_pair("symmetric_infonce", first, second)
    first, second = gather_with_gradient(first.float()), gather_with_gradient(second.float())
    logits = cosine_logits(first, second, temperature)  # [N, N], N pairs of all processes
    targets = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def group_infonce(
    first: Tensor,
    second: Tensor,
    temperature: Tensor | float,
    groups: Tensor | None = None,
    queue: FeatureQueue | None = None,
) -> Tensor:
    """InfoNCE both ways over the batch of all processes, where pairs of one group are positives and never negatives.

    Row i with positives P (itself and the rows of its group) and negatives N costs the mean over p in P of
    `-log(e^s_ip / (e^s_ip + sum over n in N of e^s_in))`: the other positives are left out of the denominator, so that
    no positive pushes another one away. A row without negatives costs 0. Where all groups differ, it is
    `symmetric_infonce`.

    Shapes: B batch, D width, Q entries of the queue.

    Args:
        first (`Tensor`): [B, D], any norm.
        second (`Tensor`): [B, D], any norm; row i of both is a pair.
        temperature (`Tensor` or `float`): positive scalar.
        groups (`Tensor`, *optional*): [B] long, e.g. the building; rows below 0 are groups of their own, as all rows
            are without it.
        queue (`FeatureQueue`, *optional*): earlier features, more negatives for both sides; those of a row's own
            group are left out. It is read only: `queue.push` afterwards.

    Returns:
        `Tensor`: [] scalar, nats.

    Raises:
        ValueError: shapes differ.

    Source: van den Oord et al. 2018; Differs from Khosla et al. 2020 (SupCon, `L_out`), whose denominator holds the
    other positives.
    """
    _check_pair("group_infonce", first, second)
    if groups is None:
        groups = torch.full((len(first),), -1, dtype=torch.long, device=first.device)
    if groups.shape != first.shape[:1]:
        raise ValueError(f"group_infonce: groups {tuple(groups.shape)} do not fit {tuple(first.shape)} features")
    first, second = gather_with_gradient(first.float()), gather_with_gradient(second.float())
    groups = gather_with_gradient(groups)
    logits = cosine_logits(first, second, temperature)  # [N, N], N pairs of all processes
    positive = same_group(groups, groups)
    positive.fill_diagonal_(True)
    losses = []
    for matrix, anchors, side in ((logits, first, "second"), (logits.T, second, "first")):
        negatives = matrix.masked_fill(positive, _EXCLUDED)
        if queue is not None and len(queue):
            earlier, their_groups = queue.features(side)
            more = cosine_logits(anchors, earlier.to(anchors), temperature)  # [N, Q]
            negatives = torch.cat([negatives, more.masked_fill(same_group(groups, their_groups), _EXCLUDED)], dim=1)
        costs = F.softplus(negatives.logsumexp(dim=1, keepdim=True) - matrix)  # [N, N]
        losses.append(((costs * positive).sum(1) / positive.sum(1)).mean())
    return (losses[0] + losses[1]) / 2


def same_group(first: Tensor, second: Tensor) -> Tensor:
    """Tell which rows belong together: [M, N] bool of [M] and [N] group ids; ids below 0 belong to no other row."""
    return (first[:, None] == second[None, :]) & (first >= 0)[:, None]


class FeatureQueue(nn.Module):
    """The last features of both sides, as more negatives; no momentum encoder, so keep it short beside the steps.

    Its buffers are saved with the model, so that a resumed run sees what the uninterrupted one would. All processes
    hold the same queue. A feature that is no number is kept as zeros, which are like nothing.

    Shapes: B batch, D width, Q size.

    Args:
        size (`int`): Q, features kept of each side.
        width (`int`): D.
    """

    first: Tensor
    second: Tensor
    groups: Tensor
    filled: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("first", torch.zeros(size, width))
        self.register_buffer("second", torch.zeros(size, width))
        self.register_buffer("groups", torch.full((size,), -1, dtype=torch.long))
        self.register_buffer("filled", torch.zeros(1, dtype=torch.long))

    def __len__(self) -> int:
        """Return how many features of each side there are."""
        return int(self.filled)

    def features(self, side: str) -> tuple[Tensor, Tensor]:
        """Return the features of "first" or "second", [n, D], newest first, and their groups, [n].

        They are copies: a loss may still have to go backward through them after the next `push`.
        """
        count = len(self)
        return getattr(self, side)[:count].clone(), self.groups[:count].clone()

    @torch.no_grad()
    def push(self, first: Tensor, second: Tensor, groups: Tensor) -> None:
        """Add the batch of all processes; the oldest features leave. Every process must call it at the same time.

        Args:
            first (`Tensor`): [B, D], any norm.
            second (`Tensor`): [B, D], any norm.
            groups (`Tensor`): [B] long.
        """
        size = len(self.groups)
        new = [gather_with_gradient(F.normalize(side.detach().float(), dim=-1)) for side in (first, second)]
        for buffer, value in zip(
            (self.first, self.second, self.groups), (*new, gather_with_gradient(groups)), strict=True
        ):
            buffer.copy_(torch.cat([value.to(buffer).nan_to_num(0.0, 0.0, 0.0), buffer])[:size])
        self.filled.fill_(min(size, len(self) + len(new[0])))


def _check_pair(name: str, first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ValueError(f"{name}: shapes {tuple(first.shape)} and {tuple(second.shape)} differ")
