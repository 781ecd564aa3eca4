"""Averages of loss terms between two log lines, over accumulation steps and processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["LossLog"]


class LossLog:
    """Sums loss terms, each weighted by the samples of its batch.

    The names are fixed, so that every process reduces the same tensor even when its own batches lacked a term.

    Args:
        names: loss terms to follow.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.seen: set[str] = set()
        self._sums: dict[str, Tensor] = {}
        self._samples: dict[str, int] = {}

    def add(self, terms: Mapping[str, Tensor], samples: int) -> None:
        """Add one batch's terms ([] scalars) without waiting for the device; terms not followed are ignored."""
        for name in self.names:
            if name in terms:
                value = terms[name].detach().float() * samples
                self._sums[name] = self._sums[name].to(value.device) + value if name in self._sums else value
                self._samples[name] = self._samples.get(name, 0) + samples

    def state(self) -> dict[str, Any]:
        """Return what was added since the last call of `averages`, as JSON."""
        sums = {name: value.item() for name, value in self._sums.items()}
        return {"seen": sorted(self.seen), "sums": sums, "samples": dict(self._samples)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Bring back what `state` returned; terms that are not followed any more are left out."""
        self.seen = set(state["seen"])
        self._sums = {name: torch.tensor(value) for name, value in state["sums"].items() if name in self.names}
        self._samples = {name: count for name, count in state["samples"].items() if name in self.names}

    def averages(self, accelerator: Any) -> dict[str, float]:
        """Return the average of each term over all processes since the last call; terms never seen are absent.

        Every process must call it at the same time; `seen` then holds the same names on all of them.
        """
        zero = torch.zeros((), device=accelerator.device)
        sums = torch.stack([self._sums.get(name, zero).to(accelerator.device) for name in self.names])
        counts = torch.tensor([float(self._samples.get(name, 0)) for name in self.names], device=accelerator.device)
        self._sums, self._samples = {}, {}
        totals = accelerator.reduce(torch.stack([sums, counts]), reduction="sum").tolist()
        found = {name: total / count for name, total, count in zip(self.names, *totals, strict=True) if count > 0}
        self.seen.update(found)
        return found
