"""Contrastive losses between paired embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "FeatureQueue",
    "gather_with_gradient",
    "gathered_offset",
    "group_infonce",
    "one_process",
    "same_group",
    "symmetric_infonce",
]

_ONE_PROCESS: ContextVar[bool] = ContextVar("one_process", default=False)
_EXCLUDED = -1e30  # a logit that counts nothing; finite, so that a row of nothing else has a gradient of 0 and not NaN


@contextmanager
def one_process() -> Iterator[None]:
    """Let losses see this process's batch only: for a forward pass that the other processes do not take part in."""
    token = _ONE_PROCESS.set(True)
    try:
        yield
    finally:
        _ONE_PROCESS.reset(token)


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """Concatenate a tensor over all processes, keeping gradients; the tensor itself in a single one or `one_process`.

    Args:
        tensor (`Tensor`): [B, ...], same shape on every process.

    Returns:
        `Tensor`: [world * B, ...] in rank order.
    """
    if _alone():
        return tensor
    if not tensor.is_floating_point():
        found = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(found, tensor.contiguous())
        return torch.cat(found, dim=0)
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(tensor.contiguous()), dim=0)


def gathered_offset(rows: int) -> int:
    """Return where this process's rows begin in what `gather_with_gradient` returns for `rows` rows a process."""
    return 0 if _alone() else dist.get_rank() * rows


def _alone() -> bool:
    if _ONE_PROCESS.get() or not (dist.is_available() and dist.is_initialized()):
        return True
    return dist.get_world_size() == 1


def symmetric_infonce(first: Tensor, second: Tensor, temperature: Tensor | float) -> Tensor:
    """InfoNCE both ways over the batch of all processes; row i of both is a pair.

    Each process sums over the gathered batch, so that the mean over processes equals one process with the whole batch.

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
    first = gather_with_gradient(F.normalize(first.float(), dim=-1))
    second = gather_with_gradient(F.normalize(second.float(), dim=-1))
    logits = first @ second.T / temperature  # [world * B, world * B]
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
    first = gather_with_gradient(F.normalize(first.float(), dim=-1))
    second = gather_with_gradient(F.normalize(second.float(), dim=-1))
    groups = gather_with_gradient(groups)
    logits = first @ second.T / temperature  # [world * B, world * B]
    positive = same_group(groups, groups)
    positive.fill_diagonal_(True)
    losses = []
    for matrix, anchors, side in ((logits, first, "second"), (logits.T, second, "first")):
        negatives = matrix.masked_fill(positive, _EXCLUDED)
        if queue is not None and len(queue):
            earlier, their_groups = queue.features(side)
            more = anchors @ earlier.to(anchors).T / temperature  # [world * B, Q]
            negatives = torch.cat([negatives, more.masked_fill(same_group(groups, their_groups), _EXCLUDED)], dim=1)
        costs = F.softplus(negatives.logsumexp(dim=1, keepdim=True) - matrix)  # [world * B, world * B]
        losses.append(((costs * positive).sum(1) / positive.sum(1)).mean())
    return (losses[0] + losses[1]) / 2


def same_group(first: Tensor, second: Tensor) -> Tensor:
    """Tell which rows belong together: [M, N] bool of [M] and [N] group ids; ids below 0 belong to no other row."""
    return (first[:, None] == second[None, :]) & (first >= 0)[:, None]


class FeatureQueue(nn.Module):
    """The last features of both sides, as more negatives; no momentum encoder, so keep it short beside the steps.

    Its buffers are saved with the model, so that a resumed run sees what the uninterrupted one would. All processes
    hold the same queue.

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
        """Return the features of "first" or "second", [n, D], newest first, and their groups, [n]."""
        count = len(self)
        return getattr(self, side)[:count], self.groups[:count]

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
            buffer.copy_(torch.cat([value.to(buffer), buffer])[:size])
        self.filled.fill_(min(size, len(self) + len(new[0])))


def _check_pair(name: str, first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ValueError(f"{name}: shapes {tuple(first.shape)} and {tuple(second.shape)} differ")
