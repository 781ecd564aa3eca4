"""Sensor buffer, real-time chunking and watchdog on their own."""

import threading

import numpy as np
import pytest

from hfvla.errors import DataError, HfvlaError
from hfvla.serve.policy import SensorBuffer, Watchdog
from hfvla.serve.policy.chunking import ActionChunk, DelayEstimate, blend_chunks, fix_prefix

from .policy_fakes import Clock, wait_until


def filled(capacity=8, count=5):
    buffer = SensorBuffer(capacity, 2, "wrist")
    for number in range(count):
        buffer.push(1e9 + number * 0.5, np.array([number, -number], dtype=np.float32))
    return buffer


def test_a_window_ends_at_its_end():
    buffer = filled()
    found = buffer.window(1e9 + 1.4, 0.6)
    # The window is 0.8 to 1.4 s: the sample of 1.0 s, and before it the one of 0.5 s, which holds at 0.8 s.
    assert (found.times_s - 1e9).tolist() == [0.5, 1.0] and found.values[:, 0].tolist() == [1, 2]
    assert found.times_s.dtype == np.float64 and found.values.dtype == np.float32
    assert (buffer.window(1e9 + 1.5, 0.0).times_s - 1e9).tolist() == [1.0, 1.5]  # a sample at the end belongs to it
    assert len(buffer.window(1e9 - 1, 5.0).times_s) == 0
    assert SensorBuffer(4, 1).window(0.0, 1.0).values.shape == (0, 1)
    assert buffer.latest_s == 1e9 + 2.0 and SensorBuffer(4, 1).latest_s is None


def test_the_ring_keeps_the_newest():
    buffer = SensorBuffer(4, 1)
    buffer.push(np.arange(3.0), np.arange(3.0)[:, None])
    buffer.push(np.arange(3.0, 6.0), np.arange(3.0, 6.0)[:, None])
    assert len(buffer) == 4 and buffer.window(9.0, 6.0).values[:, 0].tolist() == [2, 3, 4, 5]
    assert buffer.window(5.0, 3.0).times_s.tolist() == [2, 3, 4, 5]
    with pytest.raises(DataError, match="larger capacity"):
        buffer.window(5.0, 3.5)
    buffer.push(np.arange(6.0, 20.0), np.arange(6.0, 20.0)[:, None])  # more than fits
    assert buffer.window(19.0, 2.0).times_s.tolist() == [16, 17, 18, 19]
    buffer.clear()
    assert len(buffer) == 0 and buffer.latest_s is None
    buffer.push(0.0, np.zeros(1))  # another clock may begin


def test_copies_do_not_change():
    buffer = filled(capacity=4)
    window = buffer.window(1e9 + 2.0, 0.5)
    before = window.values.copy()
    buffer.push(1e9 + np.arange(3.0, 9.0), np.full((6, 2), 9.0))
    assert np.array_equal(window.values, before)


@pytest.mark.parametrize(
    ("times", "values", "reason", "message"),
    [
        ([3.0, np.nan], np.zeros((2, 2)), "not finite", "sample 1 of 2 is not finite"),
        ([3.0, 4.0], [[0, 0], [np.inf, 0]], "not finite", "sample 1 of 2"),
        ([3.0, 2.5], np.zeros((2, 2)), "out of order", "time of sample 1 of 2 falls"),
        ([1.5], np.zeros((1, 2)), "out of order", "time of sample 0 of 1 falls.*expected 2.0 s or later"),
        ([3.0], np.zeros((1, 3)), "shape", r"got \(\(1,\), \(1, 3\)\)"),
        (np.array([3.0], dtype=np.float32), np.zeros((1, 2)), "shape", "float32"),
    ],
)
def test_refused_pushes_are_counted_and_leave_nothing(times, values, reason, message):
    buffer = SensorBuffer(8, 2, "wrist")
    buffer.push(2.0, np.ones(2))
    for count in (1, 2):
        with pytest.raises(DataError, match=f"wrist: {message}|{message}") as refused:
            buffer.push(np.asarray(times), np.asarray(values))
        assert f"({count} pushes refused: {reason})" in str(refused.value)
    assert buffer.refused == {reason: 2} and len(buffer) == 1 and buffer.latest_s == 2.0


def test_pushes_from_one_thread_and_windows_from_another():
    buffer, failed = SensorBuffer(2000, 1), []

    def push():
        for number in range(1500):
            buffer.push(float(number), np.array([number], dtype=np.float32))

    thread = threading.Thread(target=push)
    thread.start()
    while thread.is_alive():
        found = buffer.window(1e9, 2e9)
        failed += [1] if not np.array_equal(found.times_s, found.values[:, 0]) else []
    thread.join()
    assert not failed and len(buffer) == 1500


def test_delay_is_the_slowest_plan_rounded_up():
    delay = DelayEstimate(fps=10.0, kept=3)
    assert delay.steps == 1
    for seconds, steps in ((0.05, 1), (0.31, 4), (0.2, 4), (0.2, 4), (0.2, 2)):  # 0.31 s are forgotten in the end
        delay.add(seconds)
        assert delay.steps == steps
    assert DelayEstimate(10.0, fixed=3).steps == 3
    with pytest.raises(HfvlaError, match="'delay_steps': 0"):
        DelayEstimate(10.0, fixed=0)


def test_chunks_by_step():
    chunk = ActionChunk(10, np.arange(8.0)[:, None])
    assert chunk.covers(10) and chunk.covers(17) and not chunk.covers(18) and not chunk.covers(9)
    assert chunk.at(12).tolist() == [2] and chunk.ahead(15, 8)[:, 0].tolist() == [5, 6, 7]


def test_blend_by_hand():
    """Old chunk 1, new chunk 4: two steps fixed, then weights 1/3 and 2/3 on the new one: 2 and 3."""
    new, old = np.full((8, 1), 4.0), np.full((5, 1), 1.0)
    assert blend_chunks(new, old, fixed=2, steps=2)[:, 0] == pytest.approx([1, 1, 2, 3, 4, 4, 4, 4])
    assert blend_chunks(new, old[:3], fixed=2, steps=2)[:, 0] == pytest.approx(
        [1, 1, 2, 4, 4, 4, 4, 4]
    )  # old one ends
    assert blend_chunks(new, old[:0], fixed=0, steps=2)[:, 0].tolist() == [4] * 8
    assert fix_prefix(new, old[:2])[:3, 0].tolist() == [1, 1, 4] and (new == 4).all()


def test_the_watchdog_trips_once_a_miss():
    clock, trips = Clock(), []
    dog = Watchdog(0.5, lambda late_s, episode: trips.append((round(late_s, 3), episode)), clock)
    clock.turn(9)
    assert not dog.check()  # not armed before the first feed
    dog.feed(3)
    clock.turn(0.5)
    assert not dog.check()
    clock.turn(0.1)
    assert dog.check() and trips == [(0.6, 3)] and not dog.check()
    dog.feed()
    dog.disarm()
    clock.turn(9)
    assert not dog.check()
    with pytest.raises(HfvlaError, match="deadline_s; got 0"):
        Watchdog(0, print)


def test_the_watchdog_has_a_thread_of_its_own():
    tripped = threading.Event()
    dog = Watchdog(0.02, lambda late_s, episode: tripped.set())
    dog.start()
    dog.feed()
    assert tripped.wait(5)
    dog.stop()
    wait_until(lambda: "hfvla-watchdog" not in {thread.name for thread in threading.enumerate()})
