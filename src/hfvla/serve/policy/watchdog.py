"""A timer that trips when a control loop does not come back in time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from hfvla.errors import HfvlaError

__all__ = ["Watchdog"]

logger = logging.getLogger(__name__)

_LONGEST_WAIT_S = 0.05  # the clock may run faster than the thread's own


class Watchdog:
    """Calls `on_trip(late_s, episode)` once when `feed` was not called for longer than the deadline.

    It is armed by the first `feed`, and again by the first one after a trip or `disarm`. Its thread does not need the
    control loop, so that it trips also while that one hangs.

    Args:
        deadline_s: seconds between two calls of `feed`.
        on_trip: gets the seconds since the last `feed` and what that was told; called from the watchdog's thread, or
            from `check`.
        clock: seconds; the robot's own clock.

    Raises:
        HfvlaError: a deadline that is not positive.
    """

    def __init__(
        self, deadline_s: float, on_trip: Callable[[float, int], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not deadline_s > 0:
            raise HfvlaError("deadline_s", got=deadline_s, expected="more than 0")
        self.deadline_s, self._on_trip, self._clock = deadline_s, on_trip, clock
        self._lock = threading.Lock()
        self._fed: tuple[float, int] | None = None
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def feed(self, episode: int = 0) -> None:
        """Say that the control loop is alive, and in which episode."""
        now_s = self._clock()
        with self._lock:
            self._fed = (now_s, episode)

    def disarm(self) -> None:
        """Wait for the next `feed` before watching again, as in a pause."""
        with self._lock:
            self._fed = None

    def check(self) -> bool:
        """Trip if it is time to; return whether it was."""
        now_s = self._clock()
        with self._lock:
            if self._fed is None or now_s - self._fed[0] <= self.deadline_s:
                return False
            (fed_s, episode), self._fed = self._fed, None
        self._on_trip(now_s - fed_s, episode)
        return True

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is None:
            self._ending.clear()
            self._thread = threading.Thread(target=self._watch, name="hfvla-watchdog", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread; may be called again."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._ending.set()
            if thread is not threading.current_thread():
                thread.join()

    def _watch(self) -> None:
        # At a quarter of the deadline, a miss is seen at most that much late.
        wait_s = min(self.deadline_s / 4, _LONGEST_WAIT_S)
        while not self._ending.wait(wait_s):
            try:
                self.check()
            except Exception:  # of the user's callback: watching matters more, and the policy is stopped by then
                logger.exception("the watchdog's on_trip failed")
