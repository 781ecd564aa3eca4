"""Contrastive losses between paired embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

__all__ = ["gather_with_gradient", "one_process", "symmetric_infonce"]

_ONE_PROCESS: ContextVar[bool] = ContextVar("one_process", default=False)


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
    alone = _ONE_PROCESS.get() or not (dist.is_available() and dist.is_initialized())
    if alone or dist.get_world_size() == 1:
        return tensor
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(tensor.contiguous()), dim=0)


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
    if first.shape != second.shape:
        raise ValueError(f"symmetric_infonce: shapes {tuple(first.shape)} and {tuple(second.shape)} differ")
    first = gather_with_gradient(F.normalize(first.float(), dim=-1))
    second = gather_with_gradient(F.normalize(second.float(), dim=-1))
    logits = first @ second.T / temperature  # [world * B, world * B]
    targets = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
