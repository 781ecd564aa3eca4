"""A queue before the model: requests that come close together are answered in one pass.

```text
submit(key, item) -> lane of this key -> up to `batch` of them, oldest lane first -> work(key, items) in one thread
```

Requests share a batch only within a lane, since what one asks for costs all of its batch. While the model works, the
queue fills; so the more there is to do, the larger batches become, and nobody waits on an idle server for longer than
`wait_s`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from hfvla.serve.http.errors import BusyError, RequestError

__all__ = ["BatchQueue", "Job", "Work"]

logger = logging.getLogger(__name__)

Work = Callable[[Hashable, list[Any]], Sequence[Any]]
"""Maps a lane's key and its items to as many results; a result that is an exception is raised to its asker."""

_LEARNING = 0.2  # of the running mean of seconds a request


@dataclass
class Job:
    """One request in the queue.

    Attributes:
        item: what the model is asked.
        due_s: moment at which nobody waits for it any more.
        answer: set when there is one.
        since_s: when it came.
        waited_s: seconds in the queue.
        shared: how many were answered with it, itself included; 0 before it is.
    """

    item: Any
    due_s: float
    answer: asyncio.Future[Any]
    since_s: float = field(default_factory=time.monotonic)
    waited_s: float = 0.0
    shared: int = 0


class BatchQueue:
    """Lanes of requests before one thread that runs the model; lives on one event loop.

    Args:
        work: answers the items of one lane; called in a thread of its own, one call at a time.
        batch: most items a call.
        wait_s: seconds that the oldest item waits for others.
        queue: most items that wait; more are refused.
        alone: lanes whose items are answered one by one.
        seen: gets (lane, items, seconds) after each call, for metrics.
    """

    def __init__(
        self,
        work: Work,
        *,
        batch: int = 16,
        wait_s: float = 0.005,
        queue: int = 128,
        alone: Collection[Hashable] = (),
        seen: Callable[[Hashable, int, float], None] | None = None,
    ) -> None:
        self._work, self.batch, self.wait_s, self.limit, self._seen = work, batch, wait_s, queue, seen
        self._alone = frozenset(alone)
        self._lanes: dict[Hashable, deque[Job]] = {}
        self._waiting = 0
        self._news = asyncio.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hfvla-model")
        self._loop_task: asyncio.Task[None] | None = None
        self._ending = False
        self._pace_s = 0.0
        self._busy_since_s: float | None = None
        self._at_work: list[Job] = []

    def __len__(self) -> int:
        return self._waiting

    @property
    def busy_s(self) -> float:
        """Seconds that the model has been at its present batch; 0.0 when it is idle."""
        return 0.0 if self._busy_since_s is None else time.monotonic() - self._busy_since_s

    @property
    def alive(self) -> bool:
        """Whether requests are taken from the queue."""
        return self._loop_task is not None and not self._loop_task.done()

    def start(self) -> None:
        """Begin to work; needs a running event loop."""
        self._loop_task = asyncio.get_running_loop().create_task(self._run(), name="hfvla-batches")

    async def close(self, drain_s: float) -> None:
        """Take no more; wait for what is there, then refuse what is left."""
        self._ending = True
        self._news.set()
        if self._loop_task is not None:
            _, late = await asyncio.wait({self._loop_task}, timeout=drain_s)
            for task in late:
                task.cancel()
        for job in [*self._at_work, *(job for lane in self._lanes.values() for job in lane)]:
            if not job.answer.done():
                job.answer.set_exception(BusyError("the server ends", retry_after_s=5))
        self._lanes.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def retry_after_s(self) -> int:
        """Return in how many whole seconds there may be room: what the queue takes at its present pace."""
        return max(1, min(60, math.ceil(self._waiting * self._pace_s)))

    async def submit(self, key: Hashable, item: Any, timeout_s: float) -> tuple[Any, Job]:
        """Return the answer to an item, and what became of it on the way.

        Raises:
            BusyError: the queue is full, or the item's time was over before its turn came.
            RequestError: the model takes too long.
            Exception: whatever `work` gave as this item's answer.
        """
        if self._ending:
            raise BusyError("the server ends", retry_after_s=5)
        if self._waiting >= self.limit:
            raise BusyError(
                "the queue is full", got=f"{self._waiting} requests", expected=f"fewer than {self.limit}",
                retry_after_s=self.retry_after_s(),
            )  # fmt: skip
        loop = asyncio.get_running_loop()
        job = Job(item, time.monotonic() + timeout_s, loop.create_future())
        self._lanes.setdefault(key, deque()).append(job)
        self._waiting += 1
        self._news.set()
        try:
            async with asyncio.timeout(timeout_s):
                return await job.answer, job
        except TimeoutError:
            if not job.shared:
                raise BusyError(
                    "the request's turn did not come", got=f"{timeout_s:g} s in the queue",
                    retry_after_s=self.retry_after_s(),
                ) from None  # fmt: skip
            raise RequestError("the model takes too long", status=504, expected=f"at most {timeout_s:g} s") from None
        finally:
            job.item = None  # pictures of one who left are not kept until its turn would have come

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            key = await self._next_lane()
            if key is None:
                return
            jobs = self._take(key)
            if not jobs:
                continue
            self._at_work = jobs
            self._busy_since_s = start = time.monotonic()
            for job in jobs:
                job.waited_s, job.shared = start - job.since_s, len(jobs)
            try:
                answers = await loop.run_in_executor(self._pool, self._answers, key, [job.item for job in jobs])
            finally:
                self._busy_since_s = None
            taken_s = time.monotonic() - start
            self._pace_s += _LEARNING * (taken_s / len(jobs) - self._pace_s)
            if self._seen is not None:
                self._seen(key, len(jobs), taken_s)
            for job, answer in zip(jobs, answers, strict=True):
                if job.answer.done():  # its asker left
                    continue
                (job.answer.set_exception if isinstance(answer, BaseException) else job.answer.set_result)(answer)
            self._at_work = []

    async def _next_lane(self) -> Hashable | None:
        """Wait for a lane that is full or whose oldest item has waited long enough; None at the end."""
        while True:
            self._news.clear()
            oldest = min(self._lanes, key=lambda key: self._lanes[key][0].since_s, default=None)
            if oldest is None:
                if self._ending:
                    return None
                await self._news.wait()
                continue
            lane = self._lanes[oldest]
            left_s = lane[0].since_s + self.wait_s - time.monotonic()
            if len(lane) >= self._size(oldest) or left_s <= 0 or self._ending:
                return oldest
            try:
                async with asyncio.timeout(left_s):
                    await self._news.wait()
            except TimeoutError:
                return oldest

    def _size(self, key: Hashable) -> int:
        return 1 if key in self._alone else self.batch

    def _take(self, key: Hashable) -> list[Job]:
        """Take a batch from a lane; what nobody waits for any more is dropped."""
        jobs: list[Job] = []
        lane, now_s = self._lanes[key], time.monotonic()
        while lane and len(jobs) < self._size(key):
            job = lane.popleft()
            self._waiting -= 1
            if not job.answer.done() and job.due_s > now_s:
                jobs.append(job)
        if not lane:
            del self._lanes[key]
        return jobs

    def _answers(self, key: Hashable, items: list[Any]) -> Sequence[Any]:
        """Return an answer or an exception for each item; nothing that `work` raises ends the thread."""
        try:
            answers = self._work(key, items)
        except Exception as error:
            return [error] * len(items)
        if len(answers) != len(items):
            return [RuntimeError(f"{len(answers)} answers to {len(items)} requests")] * len(items)
        return answers
