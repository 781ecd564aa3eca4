"""A trained model as a policy that thinks when it is asked: chunks, a queue of actions, temporal ensembling."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hfvla.data.signals.observation import Observation
from hfvla.errors import HfvlaError
from hfvla.serve.policy.ensembling import TemporalEnsemble
from hfvla.serve.policy.errors import PolicyStopped
from hfvla.serve.policy.loading import PretrainedPolicy
from hfvla.serve.policy.runner import ModelRunner, PolicyFacts
from hfvla.serve.policy.safety import SafeAction, SensorGuard, StopLatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["ChunkPolicy", "PolicyOptions"]


@dataclass(frozen=True, kw_only=True)
class PolicyOptions:
    """How a policy uses its model.

    Attributes:
        n_action_steps: actions of a chunk that are executed before the next is asked for; all of it when None.
        ensemble_decay: m of temporal ensembling, which asks the model each step; None for none.
        denoising_steps: of a sampling expert; the model's own number when None.
        max_sensor_age_s: a sensor whose newest sample is older stops the policy; None for no limit but the processor's
            own, which counts where it is shorter.
        require_sensor: an observation without a sensor stops the policy, from the first on.
        safe_action: what a stop's error carries as safe to send, see `SafeAction`.
    """

    n_action_steps: int | None = None
    ensemble_decay: float | None = None
    denoising_steps: int | None = None
    max_sensor_age_s: float | None = 0.1
    require_sensor: bool = False
    safe_action: SafeAction = None

    def executed_steps(self, horizon: int, default: int) -> int:
        """Return how many actions of a chunk are executed.

        Raises:
            HfvlaError: more than the chunk has, or more than one with ensembling.
        """
        if self.ensemble_decay is not None:
            if self.n_action_steps not in (None, 1):
                raise HfvlaError("n_action_steps with temporal ensembling", got=self.n_action_steps, expected="1")
            return 1
        steps = default if self.n_action_steps is None else self.n_action_steps
        if not 1 <= steps <= horizon:
            raise HfvlaError("n_action_steps", got=steps, expected=f"1 to the horizon, {horizon}")
        return steps


class ChunkPolicy(PretrainedPolicy):
    """The synchronous policy: `plan` or `select_action` looks, thinks and answers, in the caller's thread.

    For one thread. Sensor ages are measured against the observation's own time.

    Args:
        model: see `ModelRunner`.
        processor: see `ModelRunner`.
        options: defaults of `PolicyOptions` when None.
        on_stop: called once a stop with its error.

    Raises:
        HfvlaError: an option does not fit, or the model predicts no actions.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        options: PolicyOptions | None = None,
        *,
        on_stop: Callable[[PolicyStopped], None] | None = None,
    ) -> None:
        self.options = options or PolicyOptions()
        self.runner = ModelRunner(model, processor, self.options.denoising_steps)
        self.n_action_steps = self.options.executed_steps(self.facts.horizon, default=self.facts.horizon)
        decay = self.options.ensemble_decay
        self._ensemble = None if decay is None else TemporalEnsemble(decay)
        self._guard = SensorGuard(self.options.max_sensor_age_s, self.options.require_sensor, self.facts)
        self._latch = StopLatch(self.options.safe_action, self.facts.action_dim, on_stop)
        self._queue: deque[np.ndarray] = deque()
        self.reset(0)

    @property
    def facts(self) -> PolicyFacts:
        """Horizon, sizes and rates."""
        return self.runner.facts

    def reset(self, seed: int = 0) -> None:
        """Begin an episode: forget queue, ensemble and stop, and seed the sampling noise.

        Args:
            seed: equal seeds and observations give equal actions.
        """
        self._queue.clear()
        self._guard.reset()
        self._latch.reset()
        if self._ensemble is not None:
            self._ensemble.reset()
        self._generator = self.runner.generator(seed)

    def warm_up(self, observation: Observation, runs: int = 2) -> list[float]:
        """Run the model so that the first real call is not the slow one; leaves the episode as it is.

        Args:
            observation: like those to come.
            runs: times.

        Returns:
            Seconds of each run.
        """
        seconds, generator = [], self.runner.generator(0)
        self.runner.check(observation)
        for _ in range(runs):
            start = time.perf_counter()
            self.runner.predict(observation, generator=generator)
            seconds.append(time.perf_counter() - start)
        return seconds

    def plan(self, observation: Observation) -> np.ndarray:
        """Return the actions to execute before asking again, see `hfvla.data.signals.observation.Policy`.

        Raises:
            DataError: the observation cannot be used.
            PolicyStopped: the sensor is stale, an action is not finite, or the policy was stopped before.
        """
        self._admit(observation)
        actions = self._think(observation)
        self._latch.executed(actions[-1])
        return actions

    def select_action(self, observation: Observation) -> np.ndarray:
        """Return the next action, [A]; asks the model only when the last plan is used up. Errors as `plan`.

        The sensor's age is checked at every call, also while planned actions remain.
        """
        self._admit(observation)
        if not self._queue:
            self._queue.extend(self._think(observation))
        action = self._queue.popleft()
        self._latch.executed(action)
        return action

    def _admit(self, observation: Observation) -> None:
        self._latch.check()
        try:
            self._guard.check(observation, observation.time_s)
        except PolicyStopped as error:
            raise self._latch.trip(error) from None
        self.runner.check(observation)

    def _think(self, observation: Observation) -> np.ndarray:
        try:
            chunk = self.runner.predict(observation, generator=self._generator)
        except PolicyStopped as error:
            raise self._latch.trip(error) from None
        if self._ensemble is not None:
            return self._ensemble.update(chunk)[None]
        return chunk[: self.n_action_steps]
