"""Arithmetic that must not be done in half precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["full_precision"]


def full_precision(like: Tensor) -> AbstractContextManager[None]:
    """Leave autocast inside the `with`; tensors must be made float32 by the caller.

    Under autocast `a.float() @ b.float()` is computed in half precision all the same: a matrix product casts its
    arguments back. Similarities divided by a small temperature lose percents of a loss that way, and do not fit into
    float16 at all.

    Args:
        like (`Tensor`): of the device that is computed on.
    """
    device = like.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)
