"""Rows of all processes in one tensor, with gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gather_with_gradient", "gathered_offset", "gathered_rows", "one_process"]

_ONE_PROCESS: ContextVar[bool] = ContextVar("one_process", default=False)


@contextmanager
def one_process() -> Iterator[None]:
    """Let losses see this process's batch only: for a forward pass that the other processes do not take part in."""
    token = _ONE_PROCESS.set(True)
    try:
        yield
    finally:
        _ONE_PROCESS.reset(token)


def gathered_rows(tensor: Tensor) -> tuple[int, ...]:
    """Return how many rows each process brings to `gather_with_gradient`; every process must call it.

    Args:
        tensor (`Tensor`): [B, ...]; B may differ, and be 0.
    """
    if _alone():
        return (len(tensor),)
    return tuple(_gathered_numbers([len(tensor)], tensor.device)[:, 0].tolist())


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """Concatenate a tensor over all processes, keeping gradients; the tensor itself in a single one or `one_process`.

    Processes may have different numbers of rows, some none. Every process must call it, and go backward through what
    it returns if one of them does.

    Args:
        tensor (`Tensor`): [B, ...], same shape but for B on every process.

    Returns:
        `Tensor`: [sum of B, ...] in rank order.
    """
    if _alone():
        return tensor
    wants_gradient = torch.is_grad_enabled() and tensor.requires_grad
    numbers = _gathered_numbers([len(tensor), int(wants_gradient)], tensor.device)
    rows = numbers[:, 0].tolist()
    padded = _with_rows(tensor, max(rows)).contiguous()
    if not bool(numbers[:, 1].any()):
        found = [torch.empty_like(padded) for _ in rows]
        dist.all_gather(found, padded)
    else:
        from torch.distributed.nn.functional import all_gather

        # The way backward is a call that all make: also one whose own rows (none, perhaps) need no gradient.
        found = all_gather(padded if padded.requires_grad else padded.detach().requires_grad_())
    return torch.cat([part[:count] for part, count in zip(found, rows, strict=True)], dim=0)


def gathered_offset(rows: Sequence[int]) -> int:
    """Return where this process's rows begin in what `gather_with_gradient` returns.

    Args:
        rows: from `gathered_rows`.
    """
    return 0 if _alone() else sum(rows[: dist.get_rank()])


def _gathered_numbers(numbers: Sequence[int], device: torch.device) -> Tensor:
    """Return the numbers of all processes, [world, N] on the CPU."""
    own = torch.tensor(numbers, device=device)
    found = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(found, own)
    return torch.stack(found).cpu()


def _with_rows(tensor: Tensor, rows: int) -> Tensor:
    missing = rows - len(tensor)
    return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])]) if missing else tensor


def _alone() -> bool:
    if _ONE_PROCESS.get() or not (dist.is_available() and dist.is_initialized()):
        return True
    return dist.get_world_size() == 1
