"""The queue before the model: what shares a batch, what is refused, what happens to those who leave."""

import asyncio
import threading
import time

import pytest

from hfvla.errors import DataError
from hfvla.serve.http.batching import BatchQueue
from hfvla.serve.http.errors import BusyError, RequestError


def run(work, scenario, **options):
    async def main():
        queue = BatchQueue(work, **{"wait_s": 0.02, **options})
        queue.start()
        try:
            return await scenario(queue)
        finally:
            await queue.close(2.0)

    return asyncio.run(main())


async def ask(queue, items, key="a", timeout_s=5.0):
    found = await asyncio.gather(*(queue.submit(key, item, timeout_s) for item in items), return_exceptions=True)
    return [one[0] if isinstance(one, tuple) else one for one in found]


def test_what_comes_together_is_answered_together_and_each_gets_its_own():
    calls = []

    def work(key, items):
        calls.append((key, list(items)))
        return [item * 10 for item in items]

    assert run(work, lambda queue: ask(queue, [1, 2, 3, 4, 5]), batch=4) == [10, 20, 30, 40, 50]
    assert calls == [("a", [1, 2, 3, 4]), ("a", [5])]


def test_lanes_do_not_mix_and_the_oldest_goes_first():
    calls = []

    def work(key, items):
        calls.append((key, list(items)))
        return items

    async def scenario(queue):
        await asyncio.gather(ask(queue, [1, 2], "slow"), ask(queue, [3], "fast"), ask(queue, [4], "slow"))

    run(work, scenario)
    assert calls == [("slow", [1, 2, 4]), ("fast", [3])]


def test_a_lane_may_be_answered_one_by_one():
    sizes = []
    run(lambda key, items: [sizes.append(len(items))] * len(items), lambda q: ask(q, [1, 2], "one"), alone=["one"])
    assert sizes == [1, 1]


def test_a_full_queue_says_when_to_come_back():
    released = threading.Event()

    def work(key, items):
        released.wait(5)
        return items

    async def scenario(queue):
        first = asyncio.create_task(queue.submit("a", 0, 5.0))
        await asyncio.sleep(0.1)  # it is with the model
        waiting = [asyncio.create_task(queue.submit("a", n, 5.0)) for n in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="queue is full; got '2 requests'") as caught:
            await queue.submit("a", 3, 5.0)
        released.set()
        assert [answer for answer, _ in await asyncio.gather(first, *waiting)] == [0, 1, 2]
        return caught.value

    error = run(work, scenario, queue=2, batch=1)
    assert error.status == 429 and error.retry_after_s >= 1


def test_an_exception_goes_to_its_own_asker_alone():
    def work(key, items):
        return [DataError("no", got=item) if item == 2 else item for item in items]

    one, two, three = run(work, lambda queue: ask(queue, [1, 2, 3]))
    assert (one, three) == (1, 3) and isinstance(two, DataError)


def test_work_that_fails_as_a_whole_fails_its_batch_and_not_the_next():
    def work(key, items):
        if key == "bad":
            raise ZeroDivisionError("boom")
        return items if key == "good" else []

    async def scenario(queue):
        return await ask(queue, [1, 2], "bad"), await ask(queue, [1], "short"), await ask(queue, [3], "good")

    bad, short, good = run(work, scenario)
    assert [type(error) for error in bad] == [ZeroDivisionError] * 2 and good == [3]
    assert "0 answers to 1 requests" in str(short[0])


def test_who_leaves_is_not_computed_and_keeps_no_item():
    seen, released = [], threading.Event()

    def work(key, items):
        seen.extend(items)
        released.wait(5)
        return items

    async def scenario(queue):
        first = asyncio.create_task(queue.submit("a", 1, 5.0))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(queue.submit("a", 2, 5.0))
        third = asyncio.create_task(queue.submit("a", 3, 5.0))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        assert [job.item for job in queue._lanes["a"]] == [None, 3]
        released.set()
        await asyncio.gather(first, third)
        with pytest.raises(asyncio.CancelledError):
            await second

    run(work, scenario)
    assert seen == [1, 3]


def test_time_in_the_queue_and_time_of_the_model_are_told_apart():
    def work(key, items):
        time.sleep(0.4)
        return items

    async def scenario(queue):
        first = asyncio.create_task(queue.submit("a", 1, 0.15))
        await asyncio.sleep(0.05)
        return await asyncio.gather(first, queue.submit("a", 2, 0.15), return_exceptions=True)

    slow, waited = run(work, scenario, wait_s=0.0)
    assert isinstance(slow, RequestError) and slow.status == 504 and "the model takes too long" in str(slow)
    assert isinstance(waited, BusyError) and waited.status == 429


def test_an_end_answers_what_is_there_and_takes_no_more():
    async def main():
        queue = BatchQueue(lambda key, items: (time.sleep(0.1), items)[1], wait_s=5.0)
        queue.start()
        waiting = asyncio.create_task(queue.submit("a", 1, 5.0))
        await asyncio.sleep(0)
        await queue.close(2.0)
        with pytest.raises(BusyError, match="the server ends"):
            await queue.submit("a", 2, 5.0)
        return (await waiting)[0], queue.alive

    assert asyncio.run(main()) == (1, False)


def test_an_end_does_not_wait_for_a_model_that_hangs():
    hangs = threading.Event()

    async def main():
        queue = BatchQueue(lambda key, items: (hangs.wait(10), items)[1], wait_s=0.0)
        queue.start()
        waiting = asyncio.create_task(queue.submit("a", 1, 9.0))
        await asyncio.sleep(0.05)
        await queue.close(0.1)
        with pytest.raises(BusyError, match="the server ends"):
            await waiting
        hangs.set()

    asyncio.run(main())
