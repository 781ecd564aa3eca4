"""The backbone's thread: it encodes the newest observation, at its own rate, again and again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hfvla.serve.policy.async_options import AsyncOptions, AsyncStatistics
from hfvla.serve.policy.errors import PolicyStopped
from hfvla.serve.policy.runner import ModelRunner
from hfvla.serve.policy.worker import Seen, Session, Worker

__all__ = ["Backbone", "Features"]


@dataclass(frozen=True, eq=False)
class Features:
    """What the backbone made of an observation.

    Attributes:
        value: the model's own.
        time_s: of the observation, on the robot's clock.
        number: of the observation in the episode.
    """

    value: Any
    time_s: float
    number: int


class Backbone:
    """Keeps the newest features. All methods but the thread's own want the session's condition held.

    Args:
        runner: of the model.
        options: rate and age limit.
        session: what is shared.
    """

    def __init__(self, runner: ModelRunner, options: AsyncOptions, session: Session) -> None:
        self._runner, self._options, self._session = runner, options, session
        self.worker: Worker[Seen, Features] = Worker(
            "backbone", session, take=self._next, work=self._encode, put=self._keep, seen=lambda seen: seen
        )
        self.clear(AsyncStatistics())

    def clear(self, statistics: AsyncStatistics) -> None:
        """Begin an episode; counts into its statistics."""
        self._statistics = statistics
        self.seen: Seen | None = None
        self.features: Features | None = None
        self._begun_s, self._begun_number = -math.inf, 0

    def fresh(self) -> Features:
        """Return the newest features; wait for the first ones of an episode.

        Raises:
            PolicyStopped: there are none in time, or they are too old.
        """
        options = self._options
        if self.features is None:
            self._session.wait(lambda: self.features is not None, options.start_timeout_s)
        features, now_s = self.features, self._session.clock()
        if features is None:
            expected = f"features in {options.start_timeout_s} s"
            raise PolicyStopped("the backbone gave no features", where="start of the episode", expected=expected)
        age_s = now_s - features.time_s
        if not age_s <= options.max_features_age_s:
            raise PolicyStopped(
                "the features are stale", where=f"backbone at {now_s:.3f} s", got=f"features {age_s:.3f} s old",
                expected=f"at most {options.max_features_age_s} s",
                fix="Check that the backbone keeps up (statistics), and that observations and clock count alike.",
            )  # fmt: skip
        return features

    def _next(self) -> Seen | None:
        seen, rate_hz = self.seen, self._options.backbone_hz
        if seen is None or seen.number == self._begun_number or self._session.latch.stopped is not None:
            return None
        now_s = self._session.clock()
        if rate_hz is not None and now_s - self._begun_s < 1.0 / rate_hz - 1e-9:
            return None
        self._begun_s, self._begun_number = now_s, seen.number
        return seen

    def _encode(self, seen: Seen) -> Features:
        return Features(self._runner.encode(seen.observation), seen.observation.time_s, seen.number)

    def _keep(self, seen: Seen, features: Features) -> None:
        if seen.episode == self._session.episode:
            self.features = features
            self._statistics.encoded += 1
