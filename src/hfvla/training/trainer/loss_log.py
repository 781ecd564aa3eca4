"""Averages of loss terms between two log lines, over accumulation steps and processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["LossLog"]


class LossLog:
    """Sums loss terms, each weighted by what it is a mean over in its batch.

    The names are fixed, so that every process reduces the same tensor even when its own batches lacked a term.

    Args:
        names: loss terms to follow.

    Attributes:
        seen (`set[str]`): followed terms that some batch on any process had.
        given (`set[str]`): terms that this process's batches had, also those not followed.
        empty (`int`): batches without any term, up to the last call of `averages`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.seen: set[str] = set()
        self.given: set[str] = set()
        self.empty = 0
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor | float] = {}
        self._empty = 0

    def add(
        self, terms: Mapping[str, Tensor], counts: Mapping[str, Tensor | float], only_finite: bool = False
    ) -> None:
        """Add one batch without waiting for the device.

        Args:
            terms: [] scalars by name; those not followed are ignored.
            counts: what each followed term is a mean over; one of 0 is left out, whatever its value.
            only_finite: leave out also a term that is no number, which else makes the average one.
        """
        found = [name for name in self.names if name in terms]
        self._empty += not found
        self.given.update(terms)
        for name in found:
            value, count = terms[name].detach().float(), counts[name]
            if only_finite or isinstance(count, Tensor):
                count = torch.as_tensor(count, device=value.device).float()
                count = torch.where(value.isfinite(), count, 0.0) if only_finite else count
                value = torch.where(count > 0, value * count, 0.0)
            else:
                value = value * count
            self._sums[name] = self._sums[name].to(value.device) + value if name in self._sums else value
            before = self._counts.get(name, 0.0)
            self._counts[name] = (before.to(value.device) if isinstance(before, Tensor) else before) + count

    def state(self) -> dict[str, Any]:
        """Return what was added since the last call of `averages`, as JSON."""
        sums = {name: value.item() for name, value in self._sums.items()}
        counts = {name: float(count) for name, count in self._counts.items()}
        return {"seen": sorted(self.seen), "sums": sums, "counts": counts, "empty": self._empty}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Bring back what `state` returned; terms that are not followed any more are left out."""
        self.seen, self._empty = set(state["seen"]), state["empty"]
        self._sums = {name: torch.tensor(value) for name, value in state["sums"].items() if name in self.names}
        self._counts = {name: count for name, count in state["counts"].items() if name in self.names}

    def averages(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the average of each term over all processes since the last call; terms never seen are absent.

        Every process must call it at the same time; `seen` and `empty` are then the same on all of them.
        """
        device = accelerator.device
        zero = torch.zeros((), device=device)
        sums = torch.stack([*(self._sums.get(name, zero).to(device) for name in self.names), zero])
        counts = [torch.as_tensor(self._counts.get(name, 0.0), device=device).float() for name in self.names]
        empty = torch.tensor(float(self._empty), device=device)
        self._sums, self._counts, self._empty = {}, {}, 0
        both = torch.stack([sums, torch.stack([*counts, empty])])  # [2, names + 1]
        totals, weights = accelerator.reduce(both, reduction="sum").tolist()
        self.empty = int(weights[-1])
        found = {
            name: total / count
            for name, total, count in zip(self.names, totals[:-1], weights[:-1], strict=True)
            if count > 0
        }
        self.seen.update(found)
        return found
