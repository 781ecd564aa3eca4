"""Memory that a finished stage held, given back before the next one begins."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import TYPE_CHECKING, Any

import torch

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

__all__ = ["EarlierTrainers", "free_memory", "peak_bytes"]


def free_memory() -> None:
    """Free what only reference cycles keep alive: a Trainer is in several, with its model and optimizer."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_bytes() -> int:
    """Return the most memory used so far: of the GPU where there is one, else of the process (0 where unknown)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if resource is None:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class EarlierTrainers:
    """The trainers of this process, by weak references; tells when one that is done with holds memory."""

    def __init__(self) -> None:
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def free_those_of(self, model: PreTrainedModel) -> None:
        """Free earlier trainers of a model, with their optimizers, where nothing else holds them."""
        if any(getattr(trainer, "model", None) is model for trainer in list(self._seen)):
            free_memory()

    def add(self, trainer: Trainer) -> None:
        """Remember a trainer without holding it."""
        self._seen.add(trainer)
