"""Where a model runs: a device that is there, or one line that says which are."""

from __future__ import annotations

from hfvla.errors import HfvlaError

__all__ = ["checked_device"]


def checked_device(name: str | None) -> str:
    """Return the torch device that was asked for, else a GPU if there is one.

    Args:
        name: e.g. "cpu", "cuda" or "cuda:1".

    Raises:
        HfvlaError: no such device here.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name is None:
        return "cuda" if gpus else "cpu"
    there = ["cpu", *(f"cuda:{number}" for number in range(gpus))]
    there += ["mps"] if torch.backends.mps.is_available() else []
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError, TypeError):
        device = None
    kind = None if device is None else device.type if device.type != "cuda" else f"cuda:{device.index or 0}"
    if device is None or kind not in there or (device.type != "cuda" and device.index not in (None, 0)):
        raise HfvlaError("no such device", where="--device", got=name, expected=f"one of {', '.join(there)}")
    return name
