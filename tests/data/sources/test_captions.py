"""Captioned pictures for retrieval: three layouts of records, groups, languages, and what cannot be used."""

import json

import pytest
from PIL import Image

from hfvla.data.samples.retrieval import image_text_features
from hfvla.data.sources.captions import CaptionsOptions, build_captions, count_captions
from hfvla.errors import DataError


@pytest.fixture
def root(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (8, 8), (200, 10, 10)).save(tmp_path / name)
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


FROG = {"id": "frog", "image": "a.png", "caption": " A frog. ", "languages": {"vi": "Con ếch."}}
TOAD = {"image": "b.png", "caption": ["A toad.", "A brown toad."], "image_id": "7"}
PLAIN = {"file_name": "c.png", "text": "A FROG!"}


def read(root, *records, lines=True, **options):
    file = root / ("set.jsonl" if lines else "set.json")
    texts = [json.dumps(record) for record in records]
    file.write_text("\n".join(texts) if lines else f"[{','.join(texts)}]")
    chosen = CaptionsOptions(path=str(file), **options)
    return build_captions(chosen), count_captions(chosen)


@pytest.mark.parametrize("lines", (True, False))
def test_three_layouts_become_rows(root, lines):
    data, count = read(root, FROG, TOAD, PLAIN, lines=lines)
    rows = list(data.dataset)
    assert data.dataset.features == image_text_features() and count == len(rows) == 4
    assert [row["caption"] for row in rows] == ["A frog.", "A toad.", "A brown toad.", "A FROG!"]
    assert [row["image"] for row in rows] == [str(root / name) for name in ("a.png", "b.png", "b.png", "c.png")]
    assert [row["group"] for row in rows] == ["a.png", "b.png", "b.png", "c.png"]
    assert rows[0]["id"] == "frog#0" and len({row["id"] for row in rows}) == 4
    assert data.census["captions"] == 4 and data.census["images"] == 3 and data.census["groups"] == 3


def test_captions_alike_are_one_group_where_asked(root):
    data, _ = read(root, FROG, TOAD, PLAIN, group_by="caption", captions="first")
    assert [row["group"] for row in data.dataset] == ["afrog", "atoad", "afrog"]
    data, _ = read(root, TOAD, group_by="image_id")
    assert [row["group"] for row in data.dataset] == ["7", "7"]


def test_another_language_leaves_out_the_records_that_lack_it(root):
    data, count = read(root, FROG, TOAD, PLAIN, language="vi", group_by="caption")
    assert [(row["caption"], row["group"]) for row in data.dataset] == [("Con ếch.", "afrog")]
    assert count == 1 and data.census["without_language"] == 2 and not data.census["rejected"]
    with pytest.raises(DataError, match="de"):
        read(root, FROG, TOAD, language="de")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"image": "a.png"}, "no caption"),
        ({"image": "a.png", "caption": [" "]}, "no caption"),
        ({"image": "a.png", "caption": []}, "no caption"),
        ({"image": "a.png", "caption": "\ud83d"}, "caption is no text"),
        ({"caption": "A frog."}, "no image path"),
        ({"image": "../a.png", "caption": "x"}, "image path outside the data root"),
        ({"image": "text.png", "caption": "x"}, "not an image"),
        ({"image": "missing.png", "caption": "x"}, "missing image"),
        ([1], "not an object"),
    ],
)
def test_bad_records_are_counted_and_too_many_refused(root, bad, reason):
    data, _ = read(root, FROG, bad, max_bad_fraction=0.5)
    assert len(data.dataset) == 1 and data.census["rejected"][reason]["count"] == 1
    with pytest.raises(DataError, match=f"1 of 2 records are unusable .1 {reason}"):
        read(root, FROG, bad)


def test_a_key_to_group_by_must_be_there(root):
    data, _ = read(root, FROG, TOAD, group_by="image_id", max_bad_fraction=0.5)
    assert data.census["rejected"] == {
        "no image_id to group by": {"count": 1, "first": "set.jsonl:1 (frog): got None"}
    }


def test_a_file_without_records_is_refused(root):
    with pytest.raises(DataError, match="no records in the file"):
        read(root)
    with pytest.raises(DataError, match="no records in the file"):
        read(root, lines=False)
