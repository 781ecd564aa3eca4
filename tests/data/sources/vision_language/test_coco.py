"""COCO's captions and instances: samples of records, boxes in pixels, and what cannot be used counted by reason."""

import json

import pytest

from hfvla.errors import DataError

from .sets import SHARED, coco_images, picture, read, said, write, write_coco

EXCERPT = pytest.mark.skipif(SHARED is None or not (SHARED / "coco").is_dir(), reason="no real excerpts here")


@pytest.fixture
def root(tmp_path):
    return write_coco(tmp_path / "coco")


def test_a_caption_is_a_sample_with_all_captions_of_its_picture(root):
    samples, census = read(root / "annotations" / "captions_train2017.json")
    assert [sample.id for sample in samples] == ["900", "901", "2500", "2501"]
    first = samples[0]
    assert said(first) == [("user", "<image>Describe the picture in one sentence."), ("assistant", "caption 0 of 9.")]
    assert first.images[0].path == str(root / "train2017" / "000000000009.jpg")
    assert first.references == ("caption 0 of 9.", "caption 1 of 9.")
    assert (first.kind, first.source, first.split, first.group) == ("caption", "coco_captions", "train", "coco/9")
    assert (census["found"], census["usable"], census["rejected"]) == (4, 4, {})


def test_instances_ask_for_the_boxes_of_a_category(root):
    (sample,), census = read(root / "annotations" / "instances_train2017.json")
    # Boxes of the answer from the left; 0/8, 2/6, 2/8, 5/6 and 1/8, 1/6, 5/8, 4/6.
    answer = "[0.000, 0.333, 0.250, 0.833]; [0.125, 0.167, 0.625, 0.667]"
    assert said(sample) == [
        ("user", "<image>Where is dog? Answer with left, top, right, bottom."),
        ("assistant", answer),
    ]
    assert [(box.label, box.xyxy, box.size, box.crowd) for box in sample.boxes] == [
        ("dog", (1.0, 1.0, 5.0, 4.0), (8, 6), False),
        ("dog", (0.0, 2.0, 2.0, 5.0), (8, 6), False),
        ("dog", (0.0, 0.0, 8.0, 6.0), (8, 6), True),
    ]
    assert census["notes"] == {
        "crowds (boxes marked, no part of answers)": 2,
        "pictures with a crowd of a category alone (left out)": 1,
    }


@pytest.mark.parametrize(("form", "words"), [("pixels", "[1, 1, 5, 4]"), ("thousandths", "[125, 167, 625, 667]")])
def test_boxes_are_written_as_the_recipe_says(root, form, words):
    (sample,), _ = read(root / "annotations" / "instances_train2017.json", box_text=form)
    assert said(sample)[1][1].endswith("; " + words)


def changed(root, **changes):
    path = root / "annotations" / "instances_train2017.json"
    value = json.loads(path.read_text())
    value["annotations"][0].update(changes)
    return write(path, value)


@pytest.mark.parametrize(
    ("changes", "reason", "first"),
    [
        ({"bbox": [1, 1, 0, 3]}, "box without area", "'dog': [1.0, 1.0, 1.0, 4.0]"),
        ({"bbox": [1, 1, -2, 3]}, "box without area", "'dog'"),
        ({"bbox": [1, 1, 9, 3]}, "box outside of its picture", "in 8 x 6"),
        ({"bbox": [-5, 1, 9, 3]}, "box outside of its picture", "[-5.0, 1.0, 4.0, 4.0]"),
        ({"bbox": [1, 1, float("nan"), 3]}, "box is not finite", "nan"),
        ({"bbox": [1, 1, 3]}, "box is not four numbers", "[1, 1, 3]"),
        ({"bbox": "1 1 3 3"}, "box is not four numbers", "'1 1 3 3'"),
        ({"bbox": None}, "no bbox", "keys"),
        ({"category_id": 99}, "box of an unknown category", "99"),
        ({"image_id": 7}, "annotation of a picture that the file does not list", "7"),
    ],
)
def test_a_box_that_cannot_be_used_is_counted_and_the_others_stay(root, changes, reason, first):
    (sample,), census = read(changed(root, **changes), max_bad_fraction=0.9)
    assert len(sample.boxes) == 2
    entry = census["rejected"][reason]
    assert entry["count"] == 1 and "instances_train2017.json:0 (1): " in entry["first"] and first in entry["first"]
    assert (census["found"], census["usable"]) == (4, 3)


def test_a_box_that_stands_twice_counts_once(root):
    path = root / "annotations" / "instances_train2017.json"
    value = json.loads(path.read_text())
    value["annotations"].append(value["annotations"][0])
    (sample,), census = read(write(path, value), max_bad_fraction=0.9)
    assert len(sample.boxes) == 3
    where = "annotations/instances_train2017.json:4 (1): 1"
    assert census["rejected"] == {"duplicate id": {"count": 1, "first": where}}


def test_an_edge_outside_by_rounding_is_cut(root):
    (sample,), census = read(changed(root, bbox=[4.5, 1.0, 3.9, 3.0]))
    assert sample.boxes[0].xyxy == (4.5, 1.0, 8.0, 4.0) and not census["rejected"]


def test_a_picture_of_another_size_than_annotated_gives_no_boxes(root):
    picture(root / "train2017" / "000000000009.jpg", size=(6, 8))
    with pytest.raises(DataError, match="boxes of another size than the picture's.*annotated 8 x 6, displayed 6 x 8"):
        read(root / "annotations" / "instances_train2017.json")


def test_annotations_without_pictures_fail_with_their_number_and_the_first(root):
    (root / "train2017" / "000000000025.jpg").unlink()
    path = root / "annotations" / "captions_train2017.json"
    with pytest.raises(DataError, match=r"2 of 4 .*2 annotation without its picture.*:2 \(2500\): 000000000025\.jpg"):
        read(path)
    samples, census = read(path, max_bad_fraction=0.5)
    assert len(samples) == 2 and census["rejected"]["annotation without its picture"]["count"] == 2


@pytest.mark.parametrize(
    ("caption", "reason"),
    [("", "empty caption"), (None, "no caption"), (3, "caption is not text"), (float("nan"), "caption is not text"),
     ("\ud83d", "caption is not text")],
)  # fmt: skip
def test_a_caption_that_is_none_is_counted(root, caption, reason):
    path = root / "annotations" / "captions_train2017.json"
    value = json.loads(path.read_text())
    value["annotations"][0]["caption"] = caption
    samples, census = read(write(path, value), max_bad_fraction=0.5)
    assert len(samples) == 3 and list(census["rejected"]) == [reason]


def test_two_annotations_of_one_id_are_one(root):
    path = root / "annotations" / "captions_train2017.json"
    value = json.loads(path.read_text())
    value["annotations"][1]["id"] = value["annotations"][0]["id"]
    samples, census = read(write(path, value), max_bad_fraction=0.5)
    assert len(samples) == 3 and census["rejected"]["duplicate id"]["first"].endswith(":1 (900): 900")


def test_validation_files_are_left_out_of_training_and_named(root):
    write_coco(root, numbers=(30, 31), split="val")
    samples, census = read(root, split="train")
    assert {sample.split for sample in samples} == {"train"} and len(samples) == 5
    left = {"annotations/captions_val2017.json": "val", "annotations/instances_val2017.json": "val"}
    assert census["files_left_out"] == left
    samples, census = read(root, split="val")
    assert {sample.split for sample in samples} == {"val"} and len(samples) == 5
    with pytest.raises(DataError, match=r"no record of the split 'train'.*records of val.*split: val"):
        read(root / "annotations" / "captions_val2017.json", split="train")


def test_pictures_of_two_splits_with_one_name_are_told_apart(root):
    other = picture(root / "val2017" / "000000000009.jpg", colour=(0, 0, 255))
    value = {"images": coco_images(9), "annotations": [{"image_id": 9, "id": 1, "caption": "blue"}]}
    write(root / "annotations" / "captions_val2017.json", value)
    (sample,), _ = read(root, split="val")
    assert sample.images[0].path == str(other)


@EXCERPT
def test_the_real_excerpt():
    samples, census = read(SHARED / "coco", split="val", max_bad_fraction=0.7, cache_dir=None)
    assert census["files"] == {
        "annotations/captions_val2017.json": "coco_captions",
        "annotations/instances_val2017.json": "coco_instances",
    }
    assert set(census["unknown"]) == {"SOURCE.txt"}
    assert set(census["rejected"]) == {"annotation without its picture"}
    captions = [sample for sample in samples if sample.kind == "caption"]
    boxes = [sample for sample in samples if sample.kind == "locate"]
    assert (len(captions), len(boxes)) == (200, 149) and census["found"] == 395 + 624
    assert all(len(sample.references) == 5 for sample in captions)
