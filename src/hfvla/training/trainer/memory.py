"""Memory that a finished stage held, given back before the next one begins."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch

__all__ = ["EarlierTrainers", "free_memory"]


def free_memory() -> None:
    """Free what only reference cycles keep alive: a Trainer is in several, with its model and optimizer."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class EarlierTrainers:
    """The trainers of this process, by weak references; tells when one that is done with holds memory."""

    def __init__(self) -> None:
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def free_those_of(self, model: Any) -> None:
        """Free earlier trainers of a model, with their optimizers, where nothing else holds them."""
        if any(getattr(trainer, "model", None) is model for trainer in list(self._seen)):
            free_memory()

    def add(self, trainer: Any) -> None:
        """Remember a trainer without holding it."""
        self._seen.add(trainer)
