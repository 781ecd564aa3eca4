"""Work shared by processes: everything once, in its order, the same on all; nobody waits for one that failed."""

import threading
import time

import pytest

from hfvla.data.processes import Meeting, Processes
from hfvla.data.sources.sharing import build_sources
from hfvla.errors import DataError, HfvlaError
from hfvla.family import EvaluationContext, SourceData

from .together import ThreadProcesses, together


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("parts", [0, 1, 7])
def test_parts_are_done_once_and_all_get_them_in_order(count, parts):
    done = []

    def work(processes):
        return processes.share(lambda part: done.append(part) or part * 10, range(parts))

    results = [work(Processes())] if count == 1 else together(count, work)
    assert results == [[part * 10 for part in range(parts)]] * count
    assert sorted(done) == list(range(parts))


def test_one_that_fails_stops_all():
    seen = {}

    def work(processes):
        try:
            processes.share(lambda part: 1 // part, [1, 0, 3])  # the second process has part 1, which is 0
        except (ZeroDivisionError, HfvlaError) as error:
            seen[processes.index] = error
        processes.gather(None)  # all got here: none is left waiting

    together(2, work)
    assert isinstance(seen[1], ZeroDivisionError)
    assert isinstance(seen[0], HfvlaError) and "process 1 failed: ZeroDivisionError" in str(seen[0])
    with pytest.raises(ZeroDivisionError):
        Processes().share(lambda part: 1 // part, [0])


def test_those_that_write_nothing_fit_nothing():
    context = EvaluationContext(train_rows=[1], bootstrap_samples=7)
    first, second = (context.of_process(Processes(index, 2)) for index in range(2))
    assert (first.train_rows, first.bootstrap_samples, first.processes.count) == ([1], 7, 2)
    assert (second.train_rows, second.bootstrap_samples, second.processes.index) == (None, 0, 1)
    assert not Processes().current().index and Processes().is_main


def test_a_meeting_waits_without_a_collective(tmp_path):
    order = []

    def work(processes):
        meeting = Meeting(tmp_path, processes)

        def write():
            time.sleep(0.3)
            order.append("written")

        meeting.alone("report", write)
        order.append(f"on {processes.index}")
        meeting.close()

    together(3, work)
    assert order[0] == "written" and len(order) == 4
    assert not list(tmp_path.iterdir())  # the folder goes with the last one
    meeting = Meeting(tmp_path, Processes())
    meeting.alone("report", lambda: order.append("alone"))
    meeting.close()
    assert order[-1] == "alone" and not list(tmp_path.iterdir())


def test_a_meeting_tells_of_a_failure(tmp_path):
    seen = {}

    def work(processes):
        meeting = Meeting(tmp_path, processes)
        try:
            meeting.alone("report", lambda: (_ for _ in ()).throw(OSError("disk full")))
        except (OSError, HfvlaError) as error:
            seen[processes.index] = str(error)
        meeting.close()

    together(2, work)
    assert seen == {0: "disk full", 1: "another process failed: OSError: disk full"}


def rows(name, count=3):
    from datasets import Dataset

    return Dataset.from_dict({"id": [f"{name}{number}" for number in range(count)], "group": [name] * count})


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_source_is_built_by_one_process_and_read_by_all(tmp_path, count):
    builds = []

    def build(name):
        builds.append((name, threading.current_thread().name))
        return SourceData(rows(name), {"found": 3, "rejected": {"bad": {"count": 1}}}, {"x": f"why {name}"})

    def work(processes):
        meeting = Meeting(tmp_path, processes)
        found = build_sources({name: (lambda name=name: build(name)) for name in "abcd"}, meeting)
        kept = {name: (list(data.dataset), data.census, data.rejected) for name, data in found.items()}
        meeting.close()
        return kept

    found = [work(Processes())] if count == 1 else together(count, work)
    assert all(one == found[0] for one in found) and list(found[0]) == list("abcd")
    assert found[0]["b"] == (list(rows("b")), {"found": 3, "rejected": {"bad": {"count": 1}}}, {"x": "why b"})
    assert sorted(name for name, _ in builds) == list("abcd") and len({thread for _, thread in builds}) == count


def test_a_source_that_cannot_be_built_stops_all(tmp_path):
    seen = {}

    def fail():
        raise DataError("no such file", where="source b")

    def work(processes):
        meeting = Meeting(tmp_path, processes)
        try:
            build_sources({"a": lambda: SourceData(rows("a"), {}), "b": fail}, meeting)
        except HfvlaError as error:
            seen[processes.index] = error
        meeting.close()

    together(2, work)
    assert isinstance(seen[1], DataError) and "source b: no such file" in str(seen[0])


def test_threads_stand_for_processes():
    assert isinstance(ThreadProcesses(1, 2, None), Processes) and not ThreadProcesses(1, 2, None).is_main
