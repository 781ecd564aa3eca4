"""How far a run is, and how long it will still take: parts of known size, and the speed of those already seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Part", "Progress"]

_EVALUATION_SPEED = 2.0  # of a row that is only scored, in rows that are trained on; until one was measured


@dataclass
class Part:
    """A stage or an evaluation.

    Attributes:
        kind: "stage" or "evaluation".
        name: its name.
        size: samples in all; a stage counts each epoch.
        done: samples so far.
        seconds: that this process spent on it.
        before: samples that were done before this process began, which say nothing of the speed.
        finished: whether it has ended, however many samples it had.
    """

    kind: str
    name: str
    size: float
    done: float = 0.0
    seconds: float = 0.0
    before: float = 0.0
    finished: bool = False

    @property
    def speed(self) -> float | None:
        """Samples a second, or None until some are done."""
        work = (self.size if self.finished else self.done) - self.before
        return work / self.seconds if work > 0 and self.seconds > 0 else None

    @property
    def left(self) -> float:
        """Samples that are left."""
        return 0.0 if self.finished else max(self.size - self.done, 0.0)


@dataclass
class Progress:
    """The parts of a run in their order.

    Args:
        parts: all of them.
        now: the clock, in seconds.
    """

    parts: list[Part]
    now: Callable[[], float] = time.perf_counter
    _current: Part | None = None
    _began: float = 0.0
    _share: float = field(default=0.0)

    def begin(self, kind: str, name: str) -> Part:
        """Go on to a part; the one before it is finished. One that is under way just goes on."""
        if self._current is not None and (self._current.kind, self._current.name) == (kind, name):
            return self._current
        self.end()
        found = next((part for part in self.parts if (part.kind, part.name) == (kind, name)), None)
        if found is None:
            found = Part(kind, name, 0.0)
            self.parts.append(found)
        self._current, self._began = found, self.now()
        return found

    def end(self) -> None:
        """Finish the current part."""
        if self._current is not None:
            self._tick()
            self._current.finished, self._current = True, None

    def grow(self, size: float) -> None:
        """Say how many samples the current part has, now that they are counted."""
        if self._current is not None:
            self._current.size = size

    def skip(self, kind: str, name: str) -> None:
        """Finish a part that was done before."""
        part = self.begin(kind, name)
        part.before = part.size
        self.end()

    def advance(self, done: float) -> None:
        """Say how many samples of the current part are done."""
        if self._current is not None:
            self._tick()
            self._current.done = done

    def _tick(self) -> None:
        if self._current is not None:
            now = self.now()
            self._current.seconds += now - self._began
            self._began = now

    def seconds_left(self) -> float | None:
        """Return the seconds that are left, or None as long as nothing was measured.

        A part counts by its own speed, else by that of the last one of its kind; an evaluation before which none was
        measured by twice that of training.
        """
        self._tick()
        if not self.parts:
            return None
        speeds: dict[str, float] = {}
        for part in self.parts:
            if part.speed is not None:
                speeds[part.kind] = part.speed
        total = 0.0
        for part in (part for part in self.parts if part.left):
            speed = part.speed or speeds.get(part.kind)
            if speed is None and "stage" in speeds:
                speed = speeds["stage"] * _EVALUATION_SPEED
            if speed is None:
                return None
            total += part.left / speed
        return total

    def share(self) -> float:
        """Return how much of the run is over, by time, from 0 to 1; it never goes back."""
        left, spent = self.seconds_left(), sum(part.seconds for part in self.parts)
        if left is not None and spent + left > 0:
            skipped = sum(part.before for part in self.parts)
            known = sum(part.size for part in self.parts)
            own = spent / (spent + left)
            found = skipped / known + (1 - skipped / known) * own if known else own
            self._share = max(self._share, min(found, 1.0))
        return self._share
