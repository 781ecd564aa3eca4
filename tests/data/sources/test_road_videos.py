"""The challenge reader: rows of good records, and every bad one named and counted."""

import json
import logging
import shutil
import unicodedata

import pytest
from pydantic import ValidationError

from hfvla.data.rows.splits import grouped_split
from hfvla.data.samples.video import parse_details, video_question_features
from hfvla.data.sources.road_videos import RoadVideosOptions, build_road_videos, count_road_videos
from hfvla.errors import DataError
from hfvla.worlds.road import RoadOptions
from hfvla.worlds.road.challenge import write_challenge

pytest.importorskip("av")


@pytest.fixture(scope="module")
def challenge(tmp_path_factory):
    """Two generated clips a part, with their JSON files."""
    folder = tmp_path_factory.mktemp("challenge")
    return write_challenge(folder, RoadOptions(size=8, image_size=64), test_size=6, seed=3)


@pytest.fixture
def root(challenge, tmp_path):
    """A data root with one good clip (6 s) and some bad ones."""
    videos = tmp_path / "train" / "videos"
    videos.mkdir(parents=True)
    good = sorted((challenge.train.parent / "train" / "videos").glob("*.mp4"))[0].read_bytes()
    (videos / "x.mp4").write_bytes(good)
    (videos / "cut.mp4").write_bytes(good[: len(good) // 2])
    (videos / "empty.mp4").write_bytes(b"")
    (videos / "text.mp4").write_text("no video at all")
    return tmp_path


def record(**changes):
    good = {
        "id": "train_0001",
        "question": "Đèn giao thông màu gì?",
        "choices": ["A. Đỏ", "B. Xanh"],
        "answer": "B. Xanh",
        "support_frames": [4.427402],
        "video_path": "train/videos/x.mp4",
    }
    return {**good, **changes}


def write(root, records, **extra):
    path = root / "train.json"
    path.write_text(json.dumps({"__count__": len(records), "data": records, **extra}), encoding="utf-8")
    return str(path)


def read(path, **options):
    return build_road_videos(RoadVideosOptions(path=path, **options), seed=0)


def test_a_record_becomes_a_row(root):
    data = read(write(root, [record()]))
    (row,) = data.dataset.to_list()
    assert data.dataset.features == video_question_features()
    group = row.pop("group")
    assert group.startswith("video/")
    assert row == {
        "id": "train_0001",
        "question": "Đèn giao thông màu gì?",
        "choices": ["Đỏ", "Xanh"],
        "answer": 1,
        "support_frames": [4.427402],
        "video": str(root / "train" / "videos" / "x.mp4"),
        "duration": 6.0,
        "kind": "",
        "language": "vi",
        "source": "road_videos",
        "details": "",
    }
    assert data.census == {
        "found": 1,
        "usable": 1,
        "rejected": {},
        "videos": 1,
        "unlabelled": 0,
        "without_support": 0,
    }


def test_generated_files_come_back_as_they_were_asked(challenge):
    data = read(str(challenge.train))
    original = json.loads(challenge.train.read_text(encoding="utf-8"))["data"]
    for row, source in zip(data.dataset.to_list(), original, strict=True):
        letters = [f"{letter}. {text}" for letter, text in zip("ABCD", row["choices"], strict=False)]
        assert letters == source["choices"] and letters[row["answer"]] == source["answer"]
        assert row["support_frames"] == source["support_frames"] and row["language"] in {"vi", "en"}
    assert data.census["videos"] == 2 == len(set(data.dataset["group"]))


def test_a_test_file_has_neither_answers_nor_support_frames(challenge):
    given = json.loads(challenge.test.read_text(encoding="utf-8"))
    assert given["__count__"] == len(given["data"]) == 6
    assert set(given["data"][0]) == {"id", "question", "choices", "video_path"}
    data, labelled = read(str(challenge.test)), read(str(challenge.test_labelled))
    assert set(data.dataset["answer"]) == {-1} and data.census["unlabelled"] == data.census["without_support"] == 6
    assert data.dataset["id"][:] == labelled.dataset["id"][:] and min(labelled.dataset["answer"]) >= 0


def test_counting_opens_no_video(root):
    path = write(root, [record(), record(id="b", video_path="none.mp4")])
    assert count_road_videos(RoadVideosOptions(path=path)) == 2


def test_one_clip_under_two_names_is_one_group_and_no_group_crosses_a_split(root):
    videos = root / "train" / "videos"
    shutil.copy(videos / "x.mp4", videos / "copy.mp4")
    paths = ["train/videos/x.mp4", "train/videos/copy.mp4", "./train/../train/videos/x.mp4"]
    groups = read(write(root, [record(id=path, video_path=path) for path in paths])).dataset["group"]
    assert len(set(groups)) == 1


def test_a_grouped_split_of_a_generated_file_keeps_videos_apart(tmp_path):
    files = write_challenge(tmp_path, RoadOptions(size=20, image_size=64), test_size=1)
    dataset = read(str(files.train)).dataset
    train, holdout = grouped_split(dataset["group"], 0.2, seed=0)
    videos = dataset["video"]
    assert {videos[i] for i in train}.isdisjoint(videos[i] for i in holdout) and len(holdout) == 4


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"answer": "B"}, 1),
        ({"answer": "xanh"}, None),
        ({"answer": "Xanh"}, 1),
        ({"answer": "b.  Xanh "}, 1),
        ({"answer": None}, -1),
        ({"choices": ["B. Xanh", "A. Đỏ"]}, 1),
        ({"choices": ["(A) Đỏ", "b) Xanh"], "answer": "A: Đỏ"}, 0),
    ],
)
def test_spellings_of_answers_and_letters(root, changes, answer):
    data = read(write(root, [record(**changes)]), max_bad_fraction=1.0)
    assert data.dataset["answer"][:] == ([] if answer is None else [answer])
    assert not len(data.dataset) or data.dataset[0]["choices"] == ["Đỏ", "Xanh"]


BAD = [
    ({"choices": ["Đỏ", "Xanh"]}, "choice without a letter", "'Đỏ'"),
    ({"choices": ["A. Đỏ", "A. Xanh"]}, "letter used twice", "'A'"),
    ({"choices": ["A. Đỏ", "C. Xanh"]}, "letters with a gap", "A, C"),
    ({"choices": ["A. Đỏ", "B. "]}, "empty choice", "'B. '"),
    ({"choices": [f"{letter}. {letter}" for letter in "ABCDE"]}, "number of choices", "got 5, expected 2 to 4"),
    ({"choices": ["A. Đỏ"]}, "number of choices", "got 1"),
    ({"choices": "A. Đỏ"}, "choices are not a list of texts", "'A. Đỏ'"),
    ({"answer": "C. Vàng"}, "answer not among the choices", "'C. Vàng'"),
    ({"answer": "A. Xanh"}, "answer not among the choices", "'A. Xanh'"),
    ({"answer": 1}, "answer not among the choices", "1 of"),
    ({"answer": ""}, "answer not among the choices", "''"),
    ({"question": "  "}, "empty question", "'  '"),
    ({"question": None}, "empty question", "None"),
    ({"id": None}, "no id", "question"),
    ({"support_frames": ["soon"]}, "support frame is not a time", "soon"),
    ({"support_frames": [-1.0]}, "support frame is not a time", "-1.0"),
    ({"support_frames": [float("nan")]}, "support frame is not a time", "nan"),
    ({"support_frames": [1.0, 6.5]}, "support frame past the end", "6.5 s in a video of 6.000 s"),
    ({"video_path": None}, "no video path", "None"),
    ({"video_path": "train/videos/none.mp4"}, "missing video", "none.mp4"),
    ({"video_path": "../secret.mp4"}, "video path outside the data root", "'../secret.mp4'"),
    ({"video_path": "train/../../secret.mp4"}, "video path outside the data root", "secret.mp4"),
    ({"video_path": "/etc/passwd"}, "video path outside the data root", "'/etc/passwd'"),
    ({"video_path": "train/videos/cut.mp4"}, "the video is truncated", "cut.mp4; got"),
    ({"video_path": "train/videos/empty.mp4"}, "video file is empty", "0 bytes"),
    ({"video_path": "train/videos/text.mp4"}, "not a video", "text.mp4"),
    ({"video_path": "train/videos"}, "not a video file", "a folder"),
]


@pytest.mark.parametrize(("changes", "reason", "first"), BAD, ids=[f"{b[1]}-{n}" for n, b in enumerate(BAD)])
def test_bad_records_are_counted_with_the_first_named(root, changes, reason, first):
    bad = record(id="bad_1")
    second = None if changes.get("id", "") is None else "bad_2"
    data = read(write(root, [record(), {**bad, **changes}, {**bad, "id": second, **changes}]), max_bad_fraction=0.9)
    assert data.dataset["id"][:] == ["train_0001"]
    assert list(data.census["rejected"]) == [reason] and data.census["found"] == 3
    entry = data.census["rejected"][reason]
    assert entry["count"] == 2 and entry["first"].startswith("train.json:1") and first in entry["first"]
    assert "bad_2" not in entry["first"]


TWICE = ["A. Đỏ", "B. Xanh", "C. Vàng", "C. Tắt"]


@pytest.mark.parametrize(
    ("answer", "index"),
    [("C. Vàng", 2), ("C. Tắt", 3), ("D. Tắt", 3), ("Tắt", 3), ("B", 1), ("D", 3), (None, -1)],
)
def test_a_letter_that_stands_twice_by_a_slip_gives_way_to_places(root, answer, index, caplog):
    data = read(write(root, [record(), record(id="slip", choices=TWICE, answer=answer)]))
    row = data.dataset[1]
    assert row["choices"] == ["Đỏ", "Xanh", "Vàng", "Tắt"] and row["answer"] == index
    assert parse_details(row["details"]) == {"letters": "by_place"} and data.dataset[0]["details"] == ""
    assert data.census["letters_by_place"] == 1 and "1 questions carry a letter twice" in caplog.text
    assert "slip" in caplog.text


def test_a_letter_that_stands_twice_is_refused_where_asked_or_where_places_do_not_tell(root):
    path = write(root, [record(id="slip", choices=TWICE, answer=None)])
    data = read(path, max_bad_fraction=1.0, repeated_letters="refuse")
    assert data.census["rejected"]["letter used twice"]["count"] == 1 and "slip" in data.rejected
    for letters in ("BACC", "AABC", "CCAB", "AABB", "AAA"):
        choices = [f"{letter}. {number}" for number, letter in enumerate(letters)]
        data = read(write(root, [record(choices=choices, answer=None)]), max_bad_fraction=1.0)
        assert list(data.census["rejected"]) == ["letter used twice"], letters


@pytest.mark.parametrize(
    ("choices", "answer"), [(["A. B", "B. C", "C. D"], "B"), (TWICE, "C"), (["A. B", "B. A"], "A")]
)
def test_an_answer_that_names_two_choices_is_refused(root, choices, answer):
    data = read(write(root, [record(choices=choices, answer=answer)]), max_bad_fraction=1.0)
    assert list(data.census["rejected"]) == ["answer names two choices"]


def test_a_letter_that_is_its_own_choices_text_is_that_choice(root):
    choices = ["A. A", "B. B"]
    answers = read(write(root, [record(id=one, choices=choices, answer=one) for one in ("A", "B. B")])).dataset
    assert answers["answer"][:] == [0, 1]


def test_composed_and_decomposed_texts_are_one(root):
    composed = record(answer="B. Đèn xanh", choices=["A. Đỏ", "B. Đèn xanh"])
    changed = {
        key: [unicodedata.normalize("NFD", one) for one in value] if key == "choices" else
        unicodedata.normalize("NFD", value) if isinstance(value, str) else value
        for key, value in composed.items()
    }  # fmt: skip
    mixed = {**composed, "answer": changed["answer"], "id": "mixed"}
    rows = read(write(root, [composed, {**changed, "id": "nfd"}, mixed])).dataset.to_list()
    assert [{**row, "id": ""} for row in rows[1:]] == [{**rows[0], "id": ""}] * 2
    assert rows[0]["language"] == "vi" and rows[0]["answer"] == 1


def test_a_video_is_found_under_the_other_spellings_of_its_name(root):
    (root / "train" / "videos" / "x.mp4").rename(root / "train" / "videos" / unicodedata.normalize("NFD", "đường.mp4"))
    paths = [
        "train/videos/đường.mp4",
        "train\\videos\\đường.mp4",
        unicodedata.normalize("NFD", "train/videos/đường.mp4"),
    ]
    assert len(read(write(root, [record(id=path, video_path=path) for path in paths])).dataset) == 3
    out = [record(video_path="train\\..\\..\\x.mp4")]
    assert "video path outside the data root" in read(write(root, out), max_bad_fraction=1.0).census["rejected"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"question": "Broken \ud83d?"}, "question is no text"),
        ({"choices": ["A. \udfff", "B. x"]}, "choice is no text"),
        ({"answer": "\ud800"}, "answer is no text"),
        ({"kind": 7}, "kind is no text"),
        ({"support_frames": [10**400]}, "support frame is not a time"),
        ({"id": "\ud800"}, "no id"),
        ({"video_path": "\ud800.mp4"}, "no such video path"),
        ({"video_path": "x" * 100_000}, "no such video path"),
        ({"video_path": "a\x00.mp4"}, "missing video"),
    ],
)
def test_texts_and_paths_that_cannot_be_stored_are_counted(root, changes, reason):
    data = read(write(root, [record(**changes)]), max_bad_fraction=1.0)
    (found,) = data.census["rejected"].items()
    assert found[0] == reason and found[1]["count"] == 1 and len(found[1]["first"]) < 500
    json.dumps(data.census, ensure_ascii=False).encode()


def test_an_id_used_twice_and_a_record_of_another_type_are_counted(root):
    data = read(write(root, [record(), record(), "text"]), max_bad_fraction=0.9)
    rejected = data.census["rejected"]
    assert rejected["id used twice"]["first"] == "train.json:1 (train_0001): train_0001"
    assert rejected["not an object"] == {"count": 1, "first": "train.json:2: got str"}


def test_too_many_bad_records_fail_with_counts_first_offender_and_fix(root):
    path = write(root, [record(), record(id="b", question=""), record(id="c", video_path="train/videos/cut.mp4")])
    with pytest.raises(
        DataError, match=r"2 of 3 .*1 empty question, 1 the video is trunc.*train\.json:1 \(b\).*max_bad_fraction"
    ):
        read(path)
    assert len(read(path, max_bad_fraction=0.7).dataset) == 1


def test_every_bad_record_with_an_id_is_named_for_a_submission(root):
    bad = [record(id="b", question=""), record(id="c", video_path="train/videos/cut.mp4"), record(id=None)]
    data = read(write(root, [record(), *bad]), max_bad_fraction=1.0)
    assert data.dataset["id"][:] == ["train_0001"] and list(data.rejected) == ["b", "c"]
    assert data.rejected["b"].startswith("empty question") and data.rejected["c"].startswith("the video is truncated")


def test_the_census_is_logged_as_one_table(root, caplog):
    with caplog.at_level(logging.INFO, "hfvla"):
        read(write(root, [record(), record(id="b", question="")]), max_bad_fraction=0.5)
    (entry,) = [entry for entry in caplog.records if "census" in entry.getMessage()]
    assert "rejected: empty question" in entry.getMessage() and entry.levelno == logging.WARNING


def test_a_count_that_is_not_kept_is_said(root, caplog):
    read(write(root, [record()], __count__=5))
    assert "promises 5 questions and holds 1" in caplog.text


def test_a_root_of_its_own_and_links_inside_it(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("json")
    path = write(elsewhere, [record()])
    assert len(read(path, root=str(root)).dataset) == 1
    with pytest.raises(DataError, match="missing video"):
        read(path)
    (elsewhere / "train").symlink_to(root / "train")
    assert len(read(path).dataset) == 1, "a data root may link to another disk"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"data": [\n {"id" 1}]}', r"train\.json:2:8: broken JSON"),
        ('{"data": []}', "no questions in the file"),
        ('{"questions": []}', r"\['questions'\]"),
        ('[{"task": "x"}]', r"\['task'\]"),
        ("3", "'int'"),
        ('{"data": [{"id": "a", "id": "b"}]}', "a key stands twice in one object; got 'id'"),
        ("[" * 100_000, "JSON is nested too deeply"),
        ('{"data": [' + "9" * 5000 + "]}", "JSON that cannot be read"),
    ],
)
def test_files_of_another_kind_are_refused(root, text, message):
    path = root / "train.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read(str(path))


def test_a_missing_file_and_unknown_options_are_refused(root):
    with pytest.raises(DataError, match=r"nothing\.json"):
        read(str(root / "nothing.json"))
    with pytest.raises(ValidationError, match="pathh"):
        RoadVideosOptions(path="a", pathh="b")


def test_details_are_read_back():
    assert parse_details("needs_moment=1;scene=rain/sea") == {"needs_moment": "1", "scene": "rain/sea"}
    assert parse_details("") == {}
