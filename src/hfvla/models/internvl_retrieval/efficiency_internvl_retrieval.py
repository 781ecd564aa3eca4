"""What an evaluation cost: pictures, captions and pairs a second, seconds of each part, memory, parameters."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["Clock"]


@dataclass
class Clock:
    """Times named parts, with how many items each had.

    Attributes:
        parts: (seconds, items) by name of what is counted.
    """

    parts: dict[str, tuple[float, int]] = field(default_factory=dict)

    @contextmanager
    def measure(self, name: str, items: int, device: torch.device) -> Iterator[None]:
        """Add a block's seconds to a part.

        Args:
            name: what is counted, e.g. "images".
            items: how many of them the block handles.
            device: where; a GPU is waited for.
        """
        started = time.perf_counter()
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds, count = self.parts.get(name, (0.0, 0))
        self.parts[name] = (seconds + time.perf_counter() - started, count + items)

    def metrics(self, model: Any) -> dict[str, float]:
        """Return `efficiency/...`: <items>_per_s and <items>_s of each part, parameters and memory."""
        found = {}
        for name, (seconds, count) in self.parts.items():
            found[f"efficiency/{name}_per_s"] = count / max(seconds, 1e-9)
            found[f"efficiency/{name}_s"] = seconds
        parameters = list(model.parameters())
        found["efficiency/million_parameters"] = sum(one.numel() for one in parameters) / 1e6
        device = parameters[0].device
        if device.type == "cuda":
            found["efficiency/peak_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
        return found
