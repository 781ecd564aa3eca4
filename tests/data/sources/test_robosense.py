"""The RoboSense reader: queries of every form, the gallery, and what cannot be used named."""

import json
import unicodedata

import pytest
from PIL import Image

from hfvla.data.samples.retrieval import image_text_features
from hfvla.data.sources.robosense import (
    RoboSenseOptions,
    build_robosense,
    count_robosense,
    read_gallery,
    submission_name,
)
from hfvla.errors import DataError

TEXTS = {"q_00001": "A campus, with trees.", "q_00002": "A large white roof."}
FORMS = {
    "q.txt": "".join(f"{key}\t{text}\n" for key, text in TEXTS.items()),
    "blank.txt": "\ufeff" + "\n\n".join(f"{key}\t{text} " for key, text in TEXTS.items()),
    "q.csv": "id,text\n" + "".join(f'{key},"{text}"\n' for key, text in TEXTS.items()),
    "bare.csv": "".join(f'{key},"{text}"\n' for key, text in TEXTS.items()),
    "map.json": json.dumps(TEXTS),
    "list.json": json.dumps([{"id": key, "text": text} for key, text in TEXTS.items()]),
}


def read(path, **options):
    return build_robosense(RoboSenseOptions(path=str(path), **options))


@pytest.mark.parametrize("name", FORMS)
def test_queries_of_every_form(tmp_path, name):
    path = tmp_path / name
    path.write_text(FORMS[name], encoding="utf-8")
    data = read(path)
    assert data.dataset.features == image_text_features()
    assert dict(zip(data.dataset["id"], data.dataset["caption"], strict=True)) == TEXTS
    assert set(data.dataset["group"]) == set(data.dataset["image"]) == {""}
    assert data.census == {"found": 2, "usable": 2, "rejected": {}}
    assert count_robosense(RoboSenseOptions(path=str(path))) == 2


@pytest.mark.parametrize(
    ("query_id", "name"), [("q_00001", "q1"), ("q_00120", "q120"), ("q7", "q7"), ("q_0", "q0"), ("abc", "abc")]
)
def test_names_in_a_submission(query_id, name):
    assert submission_name(query_id) == name


@pytest.mark.parametrize(
    ("line", "reason", "first"),
    [
        ("q_00003 without a tab", "query id with a blank", "'q_00003 without a tab'"),
        ("q_00003", "no query text", "None"),
        ("q_00003\t  ", "no query text", "'  '"),
        ("\ttext", "no query id", "''"),
        ("q_1\ttext", "query id used twice", "q_1 is q1"),
    ],
)
def test_bad_queries_are_named(tmp_path, line, reason, first):
    path = tmp_path / "q.txt"
    path.write_text(FORMS["q.txt"] + line + "\n")
    data = read(path, max_bad_fraction=0.5)
    assert len(data.dataset) == 2 and data.census["rejected"][reason]["count"] == 1
    assert data.census["rejected"][reason]["first"].startswith("q.txt:3") and first in str(data.census["rejected"])
    with pytest.raises(DataError, match=rf"1 of 3 .*1 {reason}"):
        read(path)


def test_a_rejected_query_is_named_for_a_submission(tmp_path):
    path = tmp_path / "q.txt"
    path.write_text(FORMS["q.txt"] + "q_00003\t\n")
    assert read(path, max_bad_fraction=0.5).rejected == {"q_00003": "no query text: got ''"}


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("q.json", "3", "no queries in the file; got 'int'"),
        ("q.json", "{", r"q\.json:1:2: broken JSON"),
        ("q.txt", "\n", "no queries in the file"),
    ],
)
def test_files_without_queries_are_refused(tmp_path, name, text, match):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=match):
        read(tmp_path / name)


@pytest.fixture
def gallery(tmp_path):
    for name in ("image_0b.jpeg", "image_0a.jpeg", "image_ff.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "readme.txt").write_text("not looked at")
    return tmp_path


def test_a_gallery_lists_ids_without_extension_in_their_order(gallery):
    found = read_gallery(gallery)
    assert [image.id for image in found.images] == ["image_0a", "image_0b", "image_ff"]
    assert found.images[2].path == str(gallery / "image_ff.png") and found.census["usable"] == 3


def test_broken_images_are_named_and_counted(gallery):
    (gallery / "image_01.jpeg").write_text("no image")
    with pytest.raises(DataError, match=r"1 of 4 .*1 not an image.*image_01\.jpeg"):
        read_gallery(gallery)
    found = read_gallery(gallery, max_bad_fraction=0.3)
    assert len(found.images) == 3 and found.census["rejected"]["not an image"]["count"] == 1


def test_two_images_of_one_id_no_image_and_no_folder_are_refused(gallery, tmp_path):
    Image.new("RGB", (8, 8)).save(gallery / "image_0a.png")
    with pytest.raises(DataError, match=r"two images of one id; got 'image_0a\.jpeg and image_0a\.png'"):
        read_gallery(gallery)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no image in the gallery"):
        read_gallery(tmp_path / "none")
    with pytest.raises(DataError, match="gallery cannot be read"):
        read_gallery(tmp_path / "missing")


def test_queries_end_at_line_feeds_alone_and_are_composed(tmp_path):
    path = tmp_path / "q.txt"
    text = f"q_00001\tA red roof\u2028near water\r\nq_00002\t{unicodedata.normalize('NFD', 'đường')}\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    rows = build_robosense(RoboSenseOptions(path=str(path))).dataset
    assert rows["caption"][:] == ["A red roof\u2028near water", "đường"]
    (tmp_path / "q.csv").write_text('id,text\nq_1,"two\nlines"\nq_2,b\n', encoding="utf-8")
    assert build_robosense(RoboSenseOptions(path=str(tmp_path / "q.csv"))).dataset["caption"][:] == ["two\nlines", "b"]


def test_notes_of_macos_beside_pictures_are_passed_over_and_counted(gallery):
    (gallery / "._image_0a.jpeg").write_bytes(bytes.fromhex("0005160700020000") + bytes(60))
    found = read_gallery(gallery)
    assert len(found.images) == 3 and found.census["hidden"] == 1 and found.census["found"] == 3
