"""How many samples a set has, told without reading it."""

import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from hfvla.data.sources.vision_language import SOURCES, VisionLanguageOptions, counting
from hfvla.data.sources.vision_language.counting import count_vision_language
from hfvla.family import resolve

from .sets import coco_images, picture, read, write, write_coco

QUOTED = 'She said "caption": and \\"conversations\\": no more.'


def options(path, **more):
    cache = path.parent.with_name(f"{path.parent.name}-tables")  # beside: a folder that changes makes the table anew
    return VisionLanguageOptions(path=str(path), cache_dir=str(cache), **{"split": "all", **more})


def talk(number):
    turns = [{"from": "human", "value": f"<image>\n{QUOTED}"}, {"from": "gpt", "value": f"Yes, {number}."}]
    return {"id": str(number), "image": "a.png", "conversations": turns}


def messages(number):
    turns = [{"role": "user", "content": f"<image>{QUOTED} {number}"}, {"role": "assistant", "content": "Yes."}]
    return {"messages": turns, "images": ["a.png"]}


def captions(root):
    entries = [{"id": n, "image_id": 9, "caption": f"{QUOTED} {n}"} for n in range(7)]
    picture(root / "train2017" / "000000000009.jpg")
    return write(root / "captions_train2017.json", {"images": coco_images(9), "annotations": entries})


def questions(root):
    picture(root / "COCO_train2014_000000000009.jpg")
    asked = [{"question_id": n, "image_id": 9, "question": "What is the question_id?"} for n in range(5)]
    said = [{"question_id": n, "image_id": 9, "answers": [{"answer": "red", "answer_id": 1}]} for n in range(5)]
    subset = {"data_subtype": "train2014"}
    write(root / "v2_mscoco_train2014_annotations.json", {**subset, "annotations": said})
    write(root / "v2_OpenEnded_mscoco_train2014_questions.json", {**subset, "questions": asked})
    return root


def table(root):
    rows = [{"image": "a.png", "caption": f"a red square {n}"} for n in range(6)]
    parquet.write_table(pa.Table.from_pylist(rows), root / "rows.parquet")
    return root / "rows.parquet"


SETS = {
    "llava": lambda root: write(root / "talk.json", [talk(n) for n in range(9)]),
    "lines": lambda root: write(root / "talk.jsonl", [talk(n) for n in range(9)]),
    "messages": lambda root: write(root / "chat.json", [messages(n) for n in range(4)]),
    "captions": captions,
    "questions": questions,
    "parquet": table,
}


@pytest.mark.parametrize("name", SETS)
def test_a_large_set_is_counted_as_it_is_read(tmp_path, monkeypatch, name):
    picture(tmp_path / "a.png")
    path = SETS[name](tmp_path)
    monkeypatch.setattr(counting, "_LARGE", -1)
    monkeypatch.setattr(counting, "_CHUNK", 37)  # keys are cut by the ends of chunks
    with monkeypatch.context() as none:
        none.setattr(counting, "build_vision_language", lambda _: pytest.fail("the set was read"))
        counted = count_vision_language(options(path))
    assert counted == len(read(path)[0]) > 3


def test_a_small_set_is_read_and_its_table_tells_from_then_on(tmp_path, monkeypatch):
    picture(tmp_path / "a.png")
    path = write(tmp_path / "talk.json", [talk(0), talk(1), {**talk(2), "image": "none.png"}])
    chosen = options(path, max_bad_fraction=1.0)
    assert count_vision_language(chosen) == 2
    monkeypatch.setattr(counting, "build_vision_language", lambda _: pytest.fail("read again"))
    assert count_vision_language(chosen) == 2


def test_files_of_other_splits_do_not_count_and_streams_have_no_number(tmp_path, monkeypatch):
    write_coco(tmp_path / "coco")
    write_coco(tmp_path / "coco", (33, 34, 35), "val")
    for name in ("train2017", "val2017"):
        (tmp_path / "coco" / "annotations" / f"instances_{name}.json").unlink()
    monkeypatch.setattr(counting, "_LARGE", -1)
    assert count_vision_language(options(tmp_path / "coco", split="train")) == 4
    assert count_vision_language(options(tmp_path / "coco", split="val")) == 6
    assert count_vision_language(options(tmp_path / "coco", streaming=True)) is None


def test_what_only_reading_counts_is_read(tmp_path, monkeypatch):
    picture(tmp_path / "a.png")
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"image": "a.png", "caption": f"a red square {n}"} for n in range(6)]))
    monkeypatch.setattr(counting, "_LARGE", -1)
    assert count_vision_language(options(path)) == 6


@pytest.mark.parametrize("name", ["vision_language", "folder"])
def test_plans_ask_it(name):
    assert resolve(SOURCES[name].count) is count_vision_language
