"""What stops a policy: a latch that stays closed until a reset, and the age of a sensor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from hfvla.data.signals.observation import Observation
from hfvla.errors import HfvlaError
from hfvla.serve.policy.errors import PolicyStopped
from hfvla.serve.policy.runner import PolicyFacts

__all__ = ["SafeAction", "SensorGuard", "StopLatch"]

SafeAction = Sequence[float] | np.ndarray | Literal["hold_last"] | None
"""What is safe to send after a stop: an action (zero motion, where actions are steps), "hold_last" (the last action
again, right only where actions are absolute positions), or None: the user's loop knows."""


class StopLatch:
    """Keeps the first reason to stop and raises it at every call until it is reset; safe to use from any thread.

    Args:
        safe_action: see `SafeAction`.
        action_dim: A; a named safe action must have as many numbers.
        on_stop: called once a stop with its error, from the thread that found the reason.

    Raises:
        HfvlaError: a safe action of another size, or not finite.
    """

    def __init__(
        self, safe_action: SafeAction, action_dim: int, on_stop: Callable[[PolicyStopped], None] | None = None
    ) -> None:
        self._lock = threading.Lock()
        self._stopped: PolicyStopped | None = None
        self._episode = 0
        self._hold = isinstance(safe_action, str)
        self._last: np.ndarray | None = None
        self._named = None if safe_action is None or self._hold else np.asarray(safe_action, dtype=np.float64)
        self._on_stop = on_stop
        if isinstance(safe_action, str) and safe_action != "hold_last":
            raise HfvlaError("safe_action", got=safe_action, expected='numbers, "hold_last" or None')
        if self._named is not None and (self._named.shape != (action_dim,) or not np.isfinite(self._named).all()):
            raise HfvlaError("safe_action", got=self._named.tolist(), expected=f"{action_dim} finite numbers")

    @property
    def stopped(self) -> PolicyStopped | None:
        """The first reason, or None."""
        return self._stopped

    @property
    def safe_action(self) -> np.ndarray | None:
        """[A], what is safe now; None where nothing was named, or nothing was executed that could be held."""
        return self._last if self._hold else self._named

    def executed(self, action: np.ndarray) -> None:
        """Remember the action that was given out last, [A]."""
        self._last = np.array(action)

    def trip(self, error: PolicyStopped, episode: int | None = None) -> PolicyStopped:
        """Close the latch and return the error that counts: the first one, with the safe action in it.

        Args:
            error: the reason.
            episode: number that `reset` returned; the reason counts only while that episode lasts. None: it counts.
        """
        with self._lock:
            if episode is not None and episode != self._episode:
                return error
            first = self._stopped is None
            if self._stopped is None:
                error.safe_action = self.safe_action
                self._stopped = error
            stopped = self._stopped
        if first and self._on_stop is not None:
            self._on_stop(stopped)
        return stopped

    def check(self) -> None:
        """Raise the reason again, if there is one.

        Raises:
            PolicyStopped: the latch is closed.
        """
        stopped = self._stopped
        if stopped is not None:
            again = PolicyStopped(
                stopped.what, where=stopped.where, got=stopped.got, expected=stopped.expected, fix=stopped.fix,
                safe_action=stopped.safe_action,
            )  # fmt: skip
            raise again from stopped.__cause__

    def reset(self) -> int:
        """Open the latch for another episode and return its number, from 1."""
        with self._lock:
            self._stopped, self._last = None, None
            self._episode += 1
            return self._episode


class SensorGuard:
    """Refuses to act on a sensor that no longer tells the present.

    Args:
        max_age_s: seconds that the newest sample may lie behind; None for no limit.
        required: a sensor must be there from the first observation on. Without, an episode that never shows one may
            run, and one that has shown it must go on to.
        facts: of the policy. Its own limit counts where it is shorter; one that looks at no sensor is not held up.

    Raises:
        HfvlaError: a limit that is not positive, or a sensor required that is not looked at.
    """

    def __init__(self, max_age_s: float | None, required: bool, facts: PolicyFacts) -> None:
        if max_age_s is not None and not max_age_s > 0:
            raise HfvlaError("max_sensor_age_s", got=max_age_s, expected="more than 0, or None for no limit")
        if required and not facts.window_s:
            raise HfvlaError("require_sensor: this policy looks at no sensor", got=True, expected=False)
        limits = [limit for limit in (max_age_s, facts.max_sensor_age_s) if limit is not None]
        self.max_age_s, self.required, self._seen = min(limits, default=None), required, False
        self._used = bool(facts.window_s)

    def reset(self) -> None:
        """Begin an episode."""
        self._seen = False

    def check(self, observation: Observation, now_s: float) -> None:
        """Pass an observation whose sensor is fresh.

        Args:
            observation: with the sensor's window.
            now_s: seconds on the robot's clock.

        Raises:
            PolicyStopped: no sensor where one is due, no sample, or all samples too old.
        """
        if not self._used:
            return
        where = f"sensor at {now_s:.3f} s"
        if observation.sensor is None:
            if self.required or self._seen:
                what = "the sensor is gone" if self._seen else "no sensor, and require_sensor is set"
                raise PolicyStopped(what, where=where, got="no sensor", expected="its samples in every observation")
            return
        self._seen = True
        times_s = observation.sensor.times_s
        if not len(times_s):
            raise PolicyStopped(
                "the sensor has no sample", where=where, got="0 samples", expected="1 or more up to now",
                fix="Check the sensor's driver, and that it counts the robot's clock.",
            )  # fmt: skip
        age_s = now_s - float(times_s[-1])
        if self.max_age_s is not None and not age_s <= self.max_age_s:
            raise PolicyStopped(
                "the sensor is stale", where=where, got=f"newest sample {age_s:.3f} s old",
                expected=f"at most {self.max_age_s} s",
                fix="Check the sensor's driver, and that it counts the robot's clock.",
            )  # fmt: skip
