"""A submission: every question has its line, none is invented, and an interrupted run goes on."""

import csv
import json
import threading
import time

import pytest

from hfvla.errors import DataError
from hfvla.family import AnswerFile, SourceData
from hfvla.models.internvl_video_qa.evaluation import submission
from hfvla.models.internvl_video_qa.evaluation.predicting import DeadlineError, deadline
from hfvla.models.internvl_video_qa.evaluation.submission import write_answers

from .. import scripted
from ..scripted import favour, truth


@pytest.fixture
def answer(monkeypatch, tmp_path):
    """Write a submission under a rule; returns the summary and the ids that the model was asked."""

    def _answer(rule, rows, rejected=None, name="sub.csv", **request):
        script = scripted.Script(rule)
        monkeypatch.setattr(submission, "predict_letters", script)
        settings = {"checkpoint": "c", "data": "test.json", **request.pop("settings", {})}
        asked = AnswerFile(path=str(tmp_path / name), settings=settings, **request)
        data = SourceData(rows, {}, rejected or {})
        try:
            summary = write_answers(scripted.Model(), scripted.Processor(), data, asked)
        except KeyboardInterrupt:
            summary = None
        return summary, [row_id for _, ids, _ in script.calls for row_id in ids]

    return _answer


def right(row, mode, shown):
    return favour(shown, truth(row))


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_the_official_file_and_the_reasons_beside_it(answer, tmp_path):
    rows = scripted.questions(6, labelled=False)
    gone = {"q900": "video path outside the data root: '../x.mp4'", "q001": "id used twice: q001"}

    def rule(row, mode, shown):
        assert mode == "segments"  # a test has no support frames
        return None if row["id"] == "q002" else favour(shown, shown[3])

    summary, _ = answer(rule, rows, gone, id_column="question_id")
    assert read(tmp_path / "sub.csv") == [
        ["question_id", "answer"],
        *([f"q00{n}", "" if n == 2 else "D"] for n in range(6)),
        ["q900", ""],
    ]
    details = {line[0]: line for line in read(tmp_path / "sub.details.csv")}
    assert details["question_id"] == ["question_id", "answer", "confidence", "seconds", "failure"]
    assert "truncated" in details["q002"][4] and details["q002"][2] == ""
    assert details["q900"][4] == "unusable record: video path outside the data root: '../x.mp4'"
    assert float(details["q000"][2]) == pytest.approx(0.711, abs=0.001) and details["q000"][4] == ""
    assert (summary["questions"], summary["answered"], summary["failed"], summary["new"]) == (7, 5, 2, 7)
    assert summary["reasons"] == {"the video is truncated": 1, "video path outside the data root": 1}
    assert "accuracy" not in summary and summary["latency_p95_s"] >= summary["latency_p50_s"] >= 0
    record = json.loads((tmp_path / "sub.run.json").read_text())
    assert record["summary"] == summary and record["settings"]["data"] == "test.json"


def test_a_quick_test_then_all_of_it_asks_no_question_twice(answer, tmp_path):
    rows = scripted.questions(10)
    summary, asked = answer(right, rows, {"q900": "no video path: got None"}, limit=3)
    assert asked == ["q000", "q001", "q002"] and summary["accuracy"] == 1.0 and summary["questions"] == 3
    summary, asked = answer(right, rows, {"q900": "no video path: got None"})
    assert asked == [f"q00{n}" for n in range(3, 10)] and summary["new"] == 8
    assert [line[0] for line in read(tmp_path / "sub.csv")] == ["id", *(f"q00{n}" for n in range(10)), "q900"]
    before = (tmp_path / "sub.csv").read_bytes()
    summary, asked = answer(right, rows, {"q900": "no video path: got None"})
    assert asked == [] and summary["new"] == 0 and (tmp_path / "sub.csv").read_bytes() == before


def test_an_interrupted_run_equals_an_uninterrupted_one(answer, tmp_path):
    rows = scripted.questions(8)

    def cut(row, mode, shown):
        if row["id"] == "q005":
            raise KeyboardInterrupt
        return right(row, mode, shown)

    assert answer(cut, rows)[0] is None
    assert len(read(tmp_path / "sub.csv")) == 6  # on the disk before the next question was asked
    assert answer(right, rows)[1] == ["q005", "q006", "q007"]
    answer(right, rows, name="whole.csv")
    assert (tmp_path / "sub.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("name", ["sub.csv", "sub.details.csv"])
def test_a_torn_last_line_is_asked_again(answer, tmp_path, name):
    rows = scripted.questions(5)
    answer(right, rows)
    whole = (tmp_path / "sub.csv").read_bytes()
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-2])
    assert answer(right, rows)[1] == ["q004"]
    assert (tmp_path / "sub.csv").read_bytes() == whole
    assert len(read(tmp_path / "sub.details.csv")) == 6


def test_failed_questions_are_asked_again_on_demand(answer, tmp_path):
    rows = scripted.questions(4)
    answer(lambda row, mode, shown: None if row["id"] == "q001" else right(row, mode, shown), rows)
    assert answer(right, rows)[1] == []
    summary, asked = answer(right, rows, retry_failed=True)
    assert asked == ["q001"] and summary["failed"] == 0 and summary["accuracy"] == 1.0
    assert sorted(line[0] for line in read(tmp_path / "sub.csv")[1:]) == ["q000", "q001", "q002", "q003"]


def test_another_checkpoint_does_not_go_on_with_the_file(answer, tmp_path):
    rows = scripted.questions(3)
    answer(right, rows, limit=1)
    with pytest.raises(DataError, match=r"begun with other settings; got \{'checkpoint': 'd'\}.*--overwrite"):
        answer(right, rows, settings={"checkpoint": "d"})
    with pytest.raises(DataError, match="id_column"):
        answer(right, rows, id_column="question_id")
    summary, asked = answer(right, rows, settings={"checkpoint": "d"}, overwrite=True)
    assert len(asked) == 3 and summary["new"] == 3


def test_a_file_of_unknown_origin_is_not_touched(answer, tmp_path):
    (tmp_path / "sub.csv").write_text("id,answer\nq000,A\n")
    with pytest.raises(DataError, match=r"nothing says what it answers.*sub.run.json"):
        answer(right, scripted.questions(2))
    assert (tmp_path / "sub.csv").read_text() == "id,answer\nq000,A\n"


def test_questions_that_are_not_in_the_data_are_refused(answer):
    answer(right, scripted.questions(3))
    with pytest.raises(DataError, match="answers a question that the data does not hold; got 'q002'"):
        answer(right, scripted.questions(2))


def test_equal_ids_and_no_questions_are_refused(answer):
    rows = scripted.questions(2)
    with pytest.raises(DataError, match="two questions have one id; got 'q000'"):
        answer(right, rows.map(lambda row: {"id": "q000"}))
    with pytest.raises(DataError, match="no usable question; got .*'q9', 'missing video: x'"):
        answer(right, rows.select([]), {"q9": "missing video: x"})


def test_a_question_over_the_deadline_has_no_answer_and_the_run_goes_on(answer, tmp_path):
    def slow(row, mode, shown):
        for _ in range(200 if row["id"] == "q001" else 0):
            time.sleep(0.02)
        return right(row, mode, shown)

    started = time.perf_counter()
    summary, _ = answer(slow, scripted.questions(3), deadline_s=0.3)
    assert time.perf_counter() - started < 3  # given up, not waited for
    assert summary["reasons"] == {"over the deadline of 0.3 s": 1}
    lines = read(tmp_path / "sub.csv")
    assert lines[2] == ["q001", ""] and lines[1][1] and lines[3][1]
    assert summary["accuracy"] == pytest.approx(2 / 3)


def test_without_timers_a_late_answer_is_dropped(answer, tmp_path):
    def slow(row, mode, shown):
        time.sleep(0.2 if row["id"] == "q001" else 0)
        return right(row, mode, shown)

    found = []
    thread = threading.Thread(target=lambda: found.append(answer(slow, scripted.questions(2), deadline_s=0.1)))
    thread.start()
    thread.join()
    assert found[0][0]["failed"] == 1
    assert read(tmp_path / "sub.csv")[2] == ["q001", ""]


def test_no_deadline_waits(answer):
    summary, _ = answer(right, scripted.questions(2), deadline_s=None)
    assert summary["failed"] == 0


def test_deadline_leaves_no_timer_behind():
    with pytest.raises(DeadlineError), deadline(0.05):
        time.sleep(1)
    with deadline(0.05):
        pass
    time.sleep(0.1)


def test_an_unwritable_place_is_named(answer, tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(DataError, match="submission cannot be written"):
        answer(right, scripted.questions(1), name="taken/sub.csv")


def test_files_with_one_stem_share_nothing(answer, tmp_path):
    rows = scripted.questions(4)
    for name in ("ans.v1", "ans.v2"):
        answer(right, rows, name=name, settings={"checkpoint": name})
    for name in ("ans.v1", "ans.v2"):
        assert json.loads((tmp_path / f"{name}.run.json").read_text())["settings"]["checkpoint"] == name
        assert len(read(tmp_path / f"{name}.details.csv")) == 5


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("name", "content"),
    [("sub.run.json", '{"model": "mine"}'), ("sub.run.json", "["), ("sub.details.csv", "name,age\nx,3\n"),
     ("sub.run.json", '{"file": "sub", "settings": {}}')],
)  # fmt: skip
def test_side_files_of_somebody_else_are_not_replaced(answer, tmp_path, name, content, overwrite):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=f"{name}: this file is not of this submission"):
        answer(right, scripted.questions(4), overwrite=overwrite)
    assert (tmp_path / name).read_text() == content and not (tmp_path / "sub.csv").exists()
