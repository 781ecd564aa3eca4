"""What the threads of a policy share, and a background thread that takes jobs and hands on its errors."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from hfvla.data.signals.observation import Observation
from hfvla.errors import HfvlaError
from hfvla.serve.policy.errors import PolicyStopped
from hfvla.serve.policy.safety import StopLatch

__all__ = ["Seen", "Session", "Worker"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Seen:
    """An observation with its number in the episode, from 1, and the number of the episode."""

    observation: Observation
    number: int
    episode: int


class Session:
    """One lock, one latch, one clock for all threads of a policy.

    Args:
        latch: closed by any thread, raised in the control loop.
        clock: seconds; the robot's own clock.

    Attributes:
        condition: guards all that the threads share; notified when something has changed.
        episode: number of the current one; 0 before the first.
        closed: no more calls.
    """

    def __init__(self, latch: StopLatch, clock: Callable[[], float]) -> None:
        self.latch, self.clock = latch, clock
        self.condition = threading.Condition()
        self.episode, self.closed = 0, False

    def require_open(self) -> None:
        """Raise an HfvlaError after `close`."""
        if self.closed:
            raise HfvlaError("the policy is closed", fix="Build another one.")

    def notify(self) -> None:
        """Wake all waiting threads."""
        with self.condition:
            self.condition.notify_all()

    def wait(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until something is ready or the time is up, with the condition held; a stop ends it with its error."""
        self.condition.wait_for(lambda: ready() or self.latch.stopped is not None or self.closed, timeout_s)
        self.latch.check()
        self.require_open()

    def failed(self, thread: str, seen: Seen | None, error: Exception) -> None:
        """Stop the policy because a thread failed; the control loop raises it at its next call."""
        stopped = error
        if not isinstance(stopped, PolicyStopped):
            where = f"{thread} thread" + (f", observation {seen.number}" if seen else "")
            stopped = PolicyStopped(f"the {thread} thread failed: {type(error).__name__}: {error}", where=where)
            stopped.__cause__ = error
        self.latch.trip(stopped, seen.episode if seen else None)
        self.notify()


Job = TypeVar("Job")
Result = TypeVar("Result")


class Worker(Generic[Job, Result]):
    """One thread; `take` and `put` run while the session's condition is held, `work` runs without it.

    Args:
        name: of the thread.
        session: what is shared.
        take: returns the next job, or None while there is none.
        work: the job itself.
        put: gets the job and its result.
        seen: returns the observation that a job is of.
    """

    def __init__(
        self,
        name: str,
        session: Session,
        *,
        take: Callable[[], Job | None],
        work: Callable[[Job], Result],
        put: Callable[[Job, Result], None],
        seen: Callable[[Job], Seen],
    ) -> None:
        self.name, self._session = name, session
        self._take, self._work, self._put, self._seen = take, work, put, seen
        self._ending = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is None or not self._thread.is_alive():
            self._ending = False
            self._thread = threading.Thread(target=self._run, name=f"hfvla-{self.name}", daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Ask the thread to end and wait for it; return whether it did. One that hangs is left behind, as a daemon."""
        with self._session.condition:
            self._ending = True
            self._session.condition.notify_all()
        thread, self._thread = self._thread, None
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout_s)
        if thread.is_alive():
            logger.warning("the %s thread did not end in %g s and is left behind", self.name, timeout_s)
        return not thread.is_alive()

    def _run(self) -> None:
        job: Job | None = None
        while not self._ending:
            job = None
            try:
                with self._session.condition:
                    while not self._ending and (job := self._take()) is None:
                        self._session.condition.wait()
                if job is None or self._ending:
                    return
                result = self._work(job)
                with self._session.condition:
                    self._put(job, result)
                    self._session.condition.notify_all()
            except Exception as error:
                self._session.failed(self.name, None if job is None else self._seen(job), error)
