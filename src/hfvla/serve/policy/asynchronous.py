"""The asynchronous policy: backbone, expert and control loop each at its own rate.

The backbone's thread encodes the newest observation again and again. The expert works on the newest features with the
newest state and sensor window, in a thread of its own or inside the control call. The control loop gets its next
action at once. All that the threads share lies behind one condition; no model call holds it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hfvla.data.signals.observation import Observation
from hfvla.errors import DataError, HfvlaError
from hfvla.serve.policy.async_options import AsyncOptions, AsyncStatistics
from hfvla.serve.policy.backbone import Backbone
from hfvla.serve.policy.errors import PolicyStopped
from hfvla.serve.policy.loading import PretrainedPolicy
from hfvla.serve.policy.planner import BackgroundPlanner, InlinePlanner
from hfvla.serve.policy.runner import ModelRunner, PolicyFacts
from hfvla.serve.policy.safety import SensorGuard, StopLatch
from hfvla.serve.policy.sensor_buffer import SensorBuffer
from hfvla.serve.policy.watchdog import Watchdog
from hfvla.serve.policy.worker import Seen, Session

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["AsyncChunkPolicy"]

_CLOCK_SLACK_S = 0.01
_CLOSE_TIMEOUT_S = 5.0


class AsyncChunkPolicy(PretrainedPolicy):
    """`plan` returns one action a call, as often as the robot is controlled; use as a context manager.

    `observation.time_s`, the sensor's times and `clock` must count the same seconds. One thread may call `reset` and
    `plan`; `statistics`, `close` and the sensor buffer are safe from any.

    Args:
        model: see `ModelRunner`; its two functions are called from two threads at once.
        processor: see `ModelRunner`.
        options: defaults of `AsyncOptions` when None.
        sensor: ring buffer of the sensor; its newest window then stands in for `observation.sensor`.
        clock: seconds; the robot's own clock.
        on_stop: called once a stop with its error, maybe from a background thread: the place to halt the robot when
            the control loop itself hangs.

    Raises:
        HfvlaError: an option does not fit, or the model predicts no actions.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        options: AsyncOptions | None = None,
        *,
        sensor: SensorBuffer | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_stop: Callable[[PolicyStopped], None] | None = None,
    ) -> None:
        self.options = options = options or AsyncOptions()
        self.runner = ModelRunner(model, processor, options.denoising_steps)
        options.check(self.runner.can_continue)
        inline = options.expert == "inline"
        self.n_action_steps = options.executed_steps(self.facts.horizon, 1 if inline else self.facts.horizon // 2 or 1)
        self._sensor, self._clock = sensor, clock
        self._guard = SensorGuard(options.max_sensor_age_s, options.require_sensor, self.facts)
        self._latch = StopLatch(options.safe_action, self.facts.action_dim, on_stop)
        self._session = Session(self._latch, clock)
        self._backbone = Backbone(self.runner, options, self._session)
        planner = InlinePlanner if inline else BackgroundPlanner
        self._planner = planner(self.runner, options, self._session, self._backbone, self.n_action_steps)
        self._watchdog = None if options.deadline_s is None else Watchdog(options.deadline_s, self._missed, clock)
        self._statistics = AsyncStatistics()
        self._task: str | None = None

    @property
    def facts(self) -> PolicyFacts:
        """Horizon, sizes and rates."""
        return self.runner.facts

    def __enter__(self) -> AsyncChunkPolicy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset(self, seed: int = 0) -> None:
        """Begin an episode; what the threads still compute for the last one is thrown away. Starts them if need be.

        Args:
            seed: of the sampling noise. Which observation a chunk is planned on depends on timing all the same.

        Raises:
            HfvlaError: the policy is closed.
        """
        if self._watchdog is not None:
            self._watchdog.disarm()
        with self._session.condition:
            self._session.require_open()
            self._session.episode = self._latch.reset()
            self._guard.reset()
            self._statistics, self._task = AsyncStatistics(), None
            self._backbone.clear(self._statistics)
            self._planner.clear(self._statistics, self.runner.generator(seed))
            for worker in (self._backbone.worker, *self._planner.workers):
                worker.start()
            if self._watchdog is not None:
                self._watchdog.start()

    def warm_up(self, observation: Observation, runs: int = 2) -> list[float]:
        """Run backbone and expert in the caller's thread, before the first episode; the last run is the first delay.

        Args:
            observation: like those to come.
            runs: times.

        Returns:
            Seconds of the expert in each run.
        """
        seconds, generator = [], self.runner.generator(0)
        observation = self._with_window(observation)
        self.runner.check(observation)
        for _ in range(runs):
            features = self.runner.encode(observation)
            start_s = self._clock()
            self.runner.predict(observation, features=features, generator=generator)
            seconds.append(self._clock() - start_s)
        with self._session.condition:
            self._planner.delay.add(seconds[-1])
        return seconds

    def statistics(self) -> AsyncStatistics:
        """Return a copy of the counters since the last reset."""
        with self._session.condition:
            delay = self._planner.delay
            return dataclasses.replace(self._statistics, delay_steps=delay.steps, plan_s=delay.seconds)

    def close(self) -> None:
        """End the threads; may be called again. `plan` is refused from now on."""
        with self._session.condition:
            self._session.closed = True
            self._session.condition.notify_all()
        if self._watchdog is not None:
            self._watchdog.stop()
        for worker in (self._backbone.worker, *self._planner.workers):
            worker.stop(_CLOSE_TIMEOUT_S)

    def select_action(self, observation: Observation) -> np.ndarray:
        """Return [A], the action of this control step; see `plan`."""
        return self.plan(observation)[0]

    def plan(self, observation: Observation) -> np.ndarray:
        """Take the newest observation and return the action of this control step, [1, A].

        Raises:
            DataError: the observation cannot be used, is from another clock, or tells another task than the last one.
            PolicyStopped: sensor or features too old, a chunk or the control loop too late, a thread failed, or the
                policy was stopped before.
            HfvlaError: before `reset`, or after `close`.
        """
        self._session.require_open()
        if not self._session.episode:
            raise HfvlaError("plan before reset", fix="Call reset(seed) at the start of each episode.")
        self._latch.check()
        observation = self._with_window(observation)
        self._check_clock_and_task(observation)
        try:
            self._guard.check(observation, self._clock())
            self.runner.check(observation)
            action = self._planner.action(self._see(observation))
        except PolicyStopped as error:
            raise self._latch.trip(error) from error.__cause__
        self._latch.check()
        self._latch.executed(action)
        if self._watchdog is not None:
            self._watchdog.feed(self._session.episode)
        return action[None]

    def _see(self, observation: Observation) -> Seen:
        """Make an observation the newest one."""
        with self._session.condition:
            before = self._backbone.seen
            self._backbone.seen = seen = Seen(observation, before.number + 1 if before else 1, self._session.episode)
            self._session.condition.notify_all()
        return seen

    def _with_window(self, observation: Observation) -> Observation:
        if self._sensor is None:
            return observation
        window = self._sensor.window(observation.time_s, self.facts.window_s)
        return dataclasses.replace(observation, sensor=window)

    def _check_clock_and_task(self, observation: Observation) -> None:
        now_s = self._clock()
        if not observation.time_s <= now_s + _CLOCK_SLACK_S:
            raise DataError(
                "the observation is from the future", where="time_s", got=observation.time_s,
                expected=f"at most {now_s} s, which is now", fix="Pass the robot's own clock as clock.",
            )  # fmt: skip
        if self._task is not None and observation.task != self._task:
            raise DataError(
                "another task in the middle of an episode", got=observation.task, expected=self._task,
                fix="Call reset first.",
            )  # fmt: skip
        self._task = observation.task

    def _missed(self, late_s: float, episode: int) -> None:
        error = PolicyStopped(
            "the control loop missed its deadline", where="watchdog", got=f"{late_s:.3f} s since the last action",
            expected=f"at most {self.options.deadline_s} s", fix="Find what holds the loop up; reset to go on.",
        )  # fmt: skip
        self._latch.trip(error, episode)
        self._session.notify()
