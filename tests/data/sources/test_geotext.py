"""The GeoText-1652 reader: rows of both kinds of file, and every record and box that cannot be used named."""

import json
import logging

import pytest
from PIL import Image
from pydantic import ValidationError

from hfvla.data.rows.splits import grouped_split
from hfvla.data.samples.retrieval import image_text_features, platform_of
from hfvla.data.sources.geotext import GeoTextOptions, build_geotext, count_geotext
from hfvla.errors import DataError
from hfvla.worlds.drone import DroneOptions, build_drone, write_geotext

BOX = [0.4, 0.6, 0.3, 0.5]


@pytest.fixture
def root(tmp_path):
    """A data root with three images of two buildings, and files that are none."""
    for name in ("0839/image-43.jpeg", "0839/image-44.jpeg", "0840/0840.jpg"):
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (200, 10, 10)).save(path)
    (tmp_path / "train" / "0839" / "text.jpeg").write_text("no image at all")
    (tmp_path / "train" / "0839" / "empty.jpeg").touch()
    return tmp_path


def boxed(**changes):
    good = {
        "image_id": "0839/image-43.jpeg",
        "image": "train/0839/image-43.jpeg",
        "caption": " In the center is a red building. ",
        "sentences": ["The object in the center is a building.", "On the upper left is a road.", None],
        "bboxes": [BOX, None, None],
    }
    return {**good, **changes}


def listed(**changes):
    good = {
        "image_id": "0839/image-43.jpeg",
        "image": "train/0839/image-43.jpeg",
        "caption": ["One view.", "The same view.", "Again."],
    }
    return {**good, **changes}


def write(root, records):
    path = root / "records.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return str(path)


def read(path, **options):
    return build_geotext(GeoTextOptions(path=path, **options), seed=0)


def test_a_train_record_becomes_a_row(root):
    data = read(write(root, [boxed()]))
    assert data.dataset.features == image_text_features()
    assert data.dataset.to_list() == [
        {
            "id": "0839/image-43.jpeg#0",
            "image": str(root / "train" / "0839" / "image-43.jpeg"),
            "image_id": "0839/image-43.jpeg",
            "caption": "In the center is a red building.",
            "sentences": ["The object in the center is a building."],
            "boxes": [BOX],
            "group": "0839",
            "platform": "drone",
            "source": "geotext",
            "details": "",
        }
    ]
    assert data.census["slots_without_box"] == 2 and data.census["boxes"] == 1
    assert (data.census["found"], data.census["usable"], data.census["rejected"]) == (1, 1, {})


def test_a_test_record_becomes_a_row_a_caption(root):
    data = read(write(root, [listed()]))
    assert data.dataset["caption"][:] == ["One view.", "The same view.", "Again."]
    assert data.dataset["id"][:] == [f"0839/image-43.jpeg#{number}" for number in range(3)]
    assert data.dataset["boxes"][:] == [[], [], []] and data.census["captions"] == 3 and data.census["found"] == 1


def test_repeated_image_ids_are_captions_of_one_image(root):
    path = write(
        root, [boxed(), boxed(caption="Another."), boxed(image_id="0840/0840.jpg", image="train/0840/0840.jpg")]
    )
    data = read(path)
    assert data.dataset["id"][:] == ["0839/image-43.jpeg#0", "0839/image-43.jpeg#1", "0840/0840.jpg#0"]
    assert data.dataset["group"][:] == ["0839", "0839", "0840"]
    assert (data.census["images"], data.census["buildings"], data.census["captions"]) == (2, 2, 3)
    assert data.census["platforms"] == {"drone": 2, "satellite": 1}
    assert count_geotext(GeoTextOptions(path=path)) == 3


@pytest.mark.parametrize("make", [boxed, listed])
def test_the_first_caption_of_each_image_alone(root, make):
    second = make(image_id="0839/image-44.jpeg", image="train/0839/image-44.jpeg")
    path = write(root, [make(), make(), second])
    data = read(path, captions="first")
    assert data.dataset["image_id"][:] == ["0839/image-43.jpeg", "0839/image-44.jpeg"]
    assert data.census["captions_left_out"] == (1 if make is boxed else 7)
    assert count_geotext(GeoTextOptions(path=path, captions="first")) == 2


def test_a_building_with_one_image_is_kept_and_named(root):
    other = boxed(image_id="0839/image-44.jpeg", image="train/0839/image-44.jpeg")
    data = read(write(root, [boxed(), other, boxed(image_id="0840/0840.jpg", image="train/0840/0840.jpg")]))
    assert data.census["single_image_buildings"] == 1 and data.census["first_single_image_building"] == "0840"
    assert len(data.dataset) == 3


BAD = [
    (boxed(caption=["a", "b"]), "caption list in a train record", "got 2 captions, expected one text"),
    (listed(caption="one text"), "caption text in a test record", "'one text'"),
    (boxed(caption=" "), "empty caption", "' '"),
    (boxed(caption=None), "empty caption", "None"),
    (listed(caption=["good", ""]), "empty caption", "''"),
    (listed(caption=[]), "no caption", "[]"),
    (boxed(image_id="image-43.jpeg"), "no building in the image_id", "'image-43.jpeg'"),
    (boxed(image_id=7), "no image_id", "7"),
    (boxed(image="train/0839/none.jpeg"), "missing image", "none.jpeg"),
    (boxed(image="train/0839/text.jpeg"), "not an image", "text.jpeg"),
    (boxed(image="train/0839/empty.jpeg"), "image file is empty", "empty.jpeg"),
    (boxed(image="train/0839"), "not an image file", "0839"),
    (boxed(image="../secret.jpeg"), "image path outside the data root", "'../secret.jpeg'"),
    (boxed(image="/etc/passwd"), "image path outside the data root", "'/etc/passwd'"),
    (boxed(image=None), "no image path", "None"),
    (boxed(bboxes=[BOX]), "sentences and bboxes differ in number", "3 and 1"),
    (boxed(bboxes=None), "bboxes are not a list", "None"),
    (boxed(sentences="one"), "sentences are not a list", "'one'"),
    (boxed(sentences=["a", 3, None]), "sentence is not text", "3"),
    (boxed(sentences=["a"] * 4, bboxes=[BOX] * 4), "more than 3 sentences", "got 4"),
    (["a list"], "not an object", "got list"),
]


@pytest.mark.parametrize(("bad", "reason", "first"), BAD, ids=[f"{b[1]}-{n}" for n, b in enumerate(BAD)])
def test_bad_records_are_counted_with_the_first_named(root, bad, reason, first):
    data = read(write(root, [boxed(caption="good"), bad, bad]), max_bad_fraction=0.9)
    assert data.dataset["caption"][:] == ["good"]
    assert list(data.census["rejected"]) == [reason] and data.census["found"] == 3 and data.census["usable"] == 1
    entry = data.census["rejected"][reason]
    assert entry["count"] == 2 and entry["first"].startswith("records.json:1") and first in entry["first"]


@pytest.mark.parametrize(
    ("box", "reason"),
    [([0.9, 0.5, 0.4, 0.1], "box outside 0..1"), ([10, 20, 30, 40], "box outside 0..1"), ([0.5, 0.5], "box not four")],
)
def test_a_bad_box_is_left_out_named_and_its_caption_stays(root, box, reason, caplog):
    with caplog.at_level(logging.INFO, logger="hfvla"):
        data = read(write(root, [boxed(bboxes=[BOX, box, None])]), max_bad_fraction=0.5)
    assert data.dataset[0]["boxes"] == [BOX] and len(data.dataset[0]["sentences"]) == 1
    ((name, entry),) = data.census["bad_boxes"].items()
    assert name.startswith(reason) and entry["count"] == 1
    assert entry["first"] == f"records.json:0 (0839/image-43.jpeg): slot 1: {box!r}" and name in caplog.text
    assert data.census["rejected"] == {} and data.census["slots_without_box"] == 1


def test_too_many_bad_boxes_or_records_fail(root):
    path = write(root, [boxed(bboxes=[[10, 20, 30, 40], BOX, None])])
    with pytest.raises(
        DataError, match=r"1 of 2 boxes are unusable \(1 box outside 0\.\.1\).*slot 0: \[10, 20, 30, 40\]"
    ):
        read(path)
    path = write(root, [boxed(), boxed(caption=["a"])])
    with pytest.raises(DataError, match=r"1 of 2 .*1 caption list in a train record.*records\.json:1"):
        read(path)


def test_an_edge_outside_by_rounding_is_cut(root):
    (box,) = read(write(root, [boxed(bboxes=[[0.8, 0.5, 0.404, 0.2], None, None])])).dataset[0]["boxes"]
    assert box[0] + box[2] / 2 == pytest.approx(1.0) and box[0] - box[2] / 2 == pytest.approx(0.598)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[{", r"records\.json:1:3: broken JSON"),
        ("{}", "no records in the file"),
        ("[]", "no records in the file"),
        ('[{"question": "x"}]', r"no record has the format of GeoText-1652.*'question'"),
    ],
)
def test_files_of_another_format_are_refused(root, text, match):
    path = root / "records.json"
    path.write_text(text)
    with pytest.raises(DataError, match=match):
        read(str(path))


def test_a_missing_file_and_unknown_options_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.json: file cannot be read"):
        read(str(tmp_path / "none.json"))
    with pytest.raises(ValidationError, match="caption"):
        GeoTextOptions(path="x", captions="two")


@pytest.mark.parametrize(
    ("image_id", "path", "platform"),
    [
        ("0839/image-43.jpeg", "train/0839/image-43.jpeg", "drone"),
        ("0839/0839.jpg", "", "satellite"),
        ("0839/3.jpg", "", "ground"),
        ("0839/3.jpg", "test/gallery_satellite/0839/3.jpg", "satellite"),
        ("0001/street_view.jpg", "train/0001/street_view.jpg", "ground"),
        ("0839/roof.jpg", "train/0839/roof.jpg", ""),
        ("image_0a0bb9e5", "", ""),
    ],
)
def test_platform_by_name(image_id, path, platform):
    assert platform_of(image_id, path) == platform


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("geotext")
    return write_geotext(folder, DroneOptions(buildings=12, captions=2), test_buildings=4, seed=3), folder


def comparable(rows):
    return [{key: row[key] for key in row if key not in {"image", "source", "details"}} for row in rows]


@pytest.mark.parametrize(("name", "split", "buildings"), [("train", "train", 12), ("test_boxes", "test", 4)])
def test_generated_files_come_back_as_they_were_drawn(written, name, split, buildings):
    files, folder = written
    ours = build_drone(DroneOptions(buildings=buildings, captions=2, split=split, folder=str(folder / "own")), seed=3)
    theirs = read(str(getattr(files, name)))
    assert comparable(theirs.dataset.to_list()) == comparable(ours.dataset.to_list())
    assert theirs.census["slots_without_box"] == ours.census["slots_without_box"] > 0
    for one, other in zip(theirs.dataset["image"], ours.dataset["image"], strict=True):
        with open(one, "rb") as first, open(other, "rb") as second:
            assert first.read() == second.read()


def test_a_generated_test_file_has_caption_lists_and_no_boxes(written):
    records = json.loads(written[0].test.read_text())
    assert set(records[0]) == {"image_id", "image", "caption"} and len(records) == 16
    assert all(len(record["caption"]) == 2 for record in records)
    test, boxes = read(str(written[0].test)), read(str(written[0].test_boxes))
    assert test.dataset["caption"][:] == boxes.dataset["caption"][:] and test.census["boxes"] == 0
    assert set(test.dataset["group"]).isdisjoint(read(str(written[0].train)).dataset["group"])


def test_a_split_by_building_crosses_no_building(written):
    dataset = read(str(written[0].train)).dataset
    train, holdout = grouped_split(dataset["group"], 0.25, seed=0)
    images = dataset["image_id"]
    assert {images[i][:5] for i in train}.isdisjoint(images[i][:5] for i in holdout) and len(holdout) == 24
