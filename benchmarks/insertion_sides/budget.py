"""A training budget in processor time, and the learning rate laid to it; both sides of the comparison use it."""

from __future__ import annotations

import math
import time
from typing import Any

WARM_UP, FLOOR = 0.03, 0.02


class Budget:
    """Counts the processor seconds of training steps: forward, backward, clipping and the optimizer.

    Reading, collating, normalising and evaluating lie outside `start` and `stop`. Other work on the machine takes time
    that passes, which is not counted.

    Args:
        seconds: of this process, all its threads together.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.spent, self.steps = seconds, 0.0, 0
        self._since = 0.0
        self._began = time.perf_counter()

    def start(self) -> None:
        """Begin a step."""
        self._since = time.process_time()

    def stop(self) -> None:
        """End a step."""
        self.spent += time.process_time() - self._since
        self.steps += 1

    @property
    def share(self) -> float:
        """How much of the budget is spent, 0 to 1."""
        return min(1.0, self.spent / self.seconds)

    @property
    def over(self) -> bool:
        """The budget is spent."""
        return self.spent >= self.seconds

    def factor(self, schedule: str) -> float:
        """Return what the learning rate is multiplied by: a short warm-up, then "constant" or "cosine"."""
        decay = 1.0 if schedule == "constant" else FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * self.share))
        return min(1.0, (self.share + 1e-3) / WARM_UP) * decay

    def facts(self, batch: int) -> dict[str, Any]:
        """Return what the training came to."""
        return {
            "processor_s": round(self.spent, 2),
            "passed_s": round(time.perf_counter() - self._began, 1),
            "steps": self.steps,
            "batch": batch,
            "samples": self.steps * batch,
        }
