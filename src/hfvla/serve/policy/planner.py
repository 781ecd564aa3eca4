"""Where the actions of an asynchronous policy come from: an expert in the control call, or in a thread of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hfvla.serve.policy.async_options import AsyncOptions, AsyncStatistics
from hfvla.serve.policy.backbone import Backbone, Features
from hfvla.serve.policy.chunking import ActionChunk, DelayEstimate, blend_chunks, fix_prefix
from hfvla.serve.policy.ensembling import TemporalEnsemble
from hfvla.serve.policy.errors import PolicyStopped
from hfvla.serve.policy.runner import ModelRunner
from hfvla.serve.policy.worker import Seen, Session, Worker

__all__ = ["BackgroundPlanner", "InlinePlanner"]


class InlinePlanner:
    """Plans in the control call: newest features, newest state, newest sensor window.

    Args:
        runner: of the model.
        options: how.
        session: what is shared.
        backbone: has the features.
        executed: actions of a chunk that are executed before the next plan.
    """

    def __init__(
        self, runner: ModelRunner, options: AsyncOptions, session: Session, backbone: Backbone, executed: int
    ) -> None:
        self._runner, self._session, self._backbone, self._executed = runner, session, backbone, executed
        self._ensemble = None if options.ensemble_decay is None else TemporalEnsemble(options.ensemble_decay)
        self.workers: tuple[Worker, ...] = ()
        self.delay = DelayEstimate(runner.facts.fps)
        self.clear(AsyncStatistics(), None)

    def clear(self, statistics: AsyncStatistics, generator: Any) -> None:
        """Begin an episode."""
        self._statistics, self._generator = statistics, generator
        self._chunk: ActionChunk | None = None
        if self._ensemble is not None:
            self._ensemble.reset()

    def action(self, seen: Seen) -> np.ndarray:
        """Return [A], the action of this control step.

        Raises:
            PolicyStopped: features too old, or actions that are not finite.
        """
        with self._session.condition:
            features, step = self._backbone.fresh(), self._statistics.steps
        if self._chunk is None or step - self._chunk.start >= self._executed:
            start_s = self._session.clock()
            actions = self._runner.predict(seen.observation, features=features.value, generator=self._generator)
            self._chunk = ActionChunk(step, actions)
            with self._session.condition:
                self.delay.add(self._session.clock() - start_s)
                self._statistics.count_plan(features.number < seen.number)
        with self._session.condition:
            self._statistics.steps += 1
        return self._chunk.at(step) if self._ensemble is None else self._ensemble.update(self._chunk.actions)


@dataclass(frozen=True, eq=False)
class _Request:
    """A plan to be made.

    Attributes:
        seen: the newest observation.
        step: control step of the plan's first action.
        old: [R, A], what the old chunk holds from that step on.
        fixed: how many of them will have been executed when the plan is there.
        asked_s: time of the request.
        generator: of the episode.
    """

    seen: Seen
    step: int
    old: np.ndarray
    fixed: int
    asked_s: float
    generator: Any


class BackgroundPlanner:
    """Plans in a thread of its own while the old chunk is executed: real-time chunking.

    Args:
        runner: of the model.
        options: how.
        session: what is shared.
        backbone: has the features.
        executed: actions of a chunk that are executed before the next plan is begun.
    """

    def __init__(
        self, runner: ModelRunner, options: AsyncOptions, session: Session, backbone: Backbone, executed: int
    ) -> None:
        self._runner, self._options, self._session = runner, options, session
        self._backbone, self._executed = backbone, executed
        self._uses_prefix = runner.can_continue and options.chunking != "blend"
        self.delay = DelayEstimate(runner.facts.fps, fixed=options.delay_steps)
        self.workers = (
            Worker("expert", session, take=self._take, work=self._work, put=self._keep, seen=lambda one: one[0].seen),
        )
        self.clear(AsyncStatistics(), None)

    def clear(self, statistics: AsyncStatistics, generator: Any) -> None:
        """Begin an episode; a plan that is still being made is thrown away when it comes."""
        self._statistics, self._generator = statistics, generator
        self._request: _Request | None = None
        self._planning = False
        self._chunk: ActionChunk | None = None
        self._coming: ActionChunk | None = None

    def action(self, seen: Seen) -> np.ndarray:
        """Return [A], the action of this control step; ask for the next chunk when it is due.

        Raises:
            PolicyStopped: features too old, or no chunk covers this step in time.
        """
        with self._session.condition:
            step = self._statistics.steps
            if self._chunk is None:
                self._ask(seen, step)
            self._backbone.fresh()
            self._change_over(step)
            chunk = self._chunk
            if chunk is None or not chunk.covers(step):
                chunk = self._wait_for_chunk(seen, step)
            if not self._planning and step - chunk.start >= self._executed:
                self._ask(seen, step)
            self._statistics.steps += 1
            return chunk.at(step)

    def _ask(self, seen: Seen, step: int) -> None:
        fixed, old = 0, np.empty((0, self._runner.facts.action_dim))
        if self._chunk is not None:
            old = self._chunk.ahead(step, self._runner.facts.horizon)
            fixed = min(self.delay.steps, len(old), self._runner.facts.horizon - 1)
        self._planning = True
        self._request = _Request(seen, step, old, fixed, self._session.clock(), self._generator)
        self._session.condition.notify_all()

    def _change_over(self, step: int) -> None:
        """Go on with the coming chunk, if it is there and not all of it has passed."""
        if self._coming is None or not self._coming.covers(step):
            return
        # Steps past the fixed ones were executed from the old chunk: the new one does not know of them.
        if self._chunk is not None and step - self._coming.start > self._coming.fixed:
            self._statistics.late_chunks += 1
        self._chunk, self._coming = self._coming, None

    def _wait_for_chunk(self, seen: Seen, step: int) -> ActionChunk:
        first, facts = self._chunk is None, self._runner.facts
        if not first:
            self._statistics.waits += 1
            if not self._planning and self._coming is None:
                self._ask(seen, step)
        late_s = self._options.wait_s or 1.0 / facts.fps
        self._session.wait(lambda: self._coming is not None, self._options.start_timeout_s if first else late_s)
        self._change_over(step)
        if self._chunk is None or not self._chunk.covers(step):
            raise PolicyStopped(
                "the first chunk did not come" if first else "the chunk is used up and the next one is not there",
                where=f"control step {step}",
                got=f"slowest plan so far {self.delay.seconds:.3f} s",
                expected=f"the next chunk within {facts.horizon - self._executed} steps of {1.0 / facts.fps:.3f} s",
                fix="Use fewer denoising steps, a smaller n_action_steps, or a faster device.",
            )
        return self._chunk

    def _take(self) -> tuple[_Request, Features] | None:
        request, features = self._request, self._backbone.features
        if request is None or features is None or self._session.latch.stopped is not None:
            return None
        self._request = None
        return request, features

    def _work(self, job: tuple[_Request, Features]) -> tuple[np.ndarray, float]:
        request, features = job
        start_s = request.asked_s if len(request.old) else self._session.clock()  # not the wait for first features
        prefix = request.old[: request.fixed]
        actions = self._runner.predict(
            request.seen.observation,
            features=features.value,
            prefix=prefix if self._uses_prefix and len(prefix) else None,
            generator=request.generator,
        )
        if self._uses_prefix:
            actions = fix_prefix(actions, prefix)
        else:
            actions = blend_chunks(actions, request.old, request.fixed, self._options.blend_steps)
        return actions, self._session.clock() - start_s

    def _keep(self, job: tuple[_Request, Features], result: tuple[np.ndarray, float]) -> None:
        (request, features), (actions, seconds) = job, result
        if request.seen.episode != self._session.episode:
            return
        self.delay.add(seconds)
        self._coming = ActionChunk(request.step, actions, request.fixed)
        self._planning = False
        self._statistics.count_plan(features.number < request.seen.number)
