"""RefCOCO/+/g and Visual Genome: expressions and phrases with their boxes."""

import json
import os
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfvla.data.sources.vision_language.pickled import read_pickled_data
from hfvla.errors import DataError

from .sets import picture, read, said, write


def reference(**changes):
    return {
        "sent_ids": [0, 1],
        "file_name": "COCO_train2014_000000000009_7.jpg",
        "ann_id": 7,
        "ref_id": 1,
        "image_id": 9,
        "split": "train",
        "category_id": 18,
        "sentences": [
            {"tokens": ["left", "dog"], "raw": "Left dog.", "sent_id": 0, "sent": "left dog"},
            {"tokens": ["brown"], "raw": "brown", "sent_id": 1, "sent": "brown"},
        ],
        **changes,
    }


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data" / "refcoco"
    picture(tmp_path / "data" / "train2014" / "COCO_train2014_000000000009.jpg")
    images = [{"id": 9, "file_name": "COCO_train2014_000000000009.jpg", "width": 8, "height": 6}]
    boxes = [{"id": 7, "image_id": 9, "category_id": 18, "bbox": [2.0, 3.0, 4.0, 3.0], "iscrowd": 0}]
    write(
        folder / "instances.json", {"images": images, "annotations": boxes, "categories": [{"id": 18, "name": "dog"}]}
    )
    return tmp_path / "data"


def write_refs(root, references, name="refs(unc).p", protocol=0):
    (root / "refcoco" / name).write_bytes(pickle.dumps(references, protocol=protocol))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_refcoco_asks_for_the_box_of_each_sentence(root, protocol):
    write_refs(root, [reference()], protocol=protocol)
    samples, census = read(root)
    assert [said(sample) for sample in samples] == [
        [("user", f"<image>Where is {name}? Answer with left, top, right, bottom."),
         ("assistant", "[0.250, 0.500, 0.750, 1.000]")]
        for name in ("left dog", "brown")
    ]  # fmt: skip
    box = samples[0].boxes[0]
    assert (box.label, box.xyxy, box.size) == ("left dog", (2.0, 3.0, 6.0, 6.0), (8, 6))
    assert samples[0].references == ("left dog", "brown")
    assert (samples[0].id, samples[0].source, samples[0].split, samples[0].group) == (
        "1-0",
        "refcoco",
        "train",
        "coco/9",
    )
    assert census["files"] == {"refcoco/refs(unc).p": "refcoco"}
    assert census["beside"] == {"refcoco/instances.json": "boxes of the references beside it"}


def test_splits_of_refcoco_are_its_own(root):
    write_refs(root, [reference(), reference(ref_id=2, split="testA"), reference(ref_id=3, split="testB")])
    samples, census = read(root, split="train")
    assert {sample.split for sample in samples} == {"train"} and census["left_out"] == {"testA": 1, "testB": 1}
    assert {sample.split for sample in read(root, split="testA")[0]} == {"testA"}
    assert {sample.split for sample in read(root, split="test")[0]} == {"testA", "testB"}


def test_another_division_of_the_same_references_is_named_and_not_read(root):
    write_refs(root, [reference()])
    write_refs(root, [reference(split="val")], name="refs(google).p")
    samples, census = read(root)
    assert len(samples) == 2 and {sample.split for sample in samples} == {"train"}
    assert "another division of refs(unc).p" in census["beside"]["refcoco/refs(google).p"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ann_id": 8}, "reference without its box"),
        ({"sentences": []}, "no sentences"),
        ({"image_id": 10}, "annotation without its picture"),
        ({"image_id": None}, "no image_id"),
    ],
)
def test_a_reference_that_cannot_be_used_is_counted(root, changes, reason):
    write_refs(root, [reference(), reference(ref_id=2, **changes)])
    samples, census = read(root, max_bad_fraction=0.5)
    assert len(samples) == 2 and list(census["rejected"]) == [reason]
    assert "refs(unc).p:1 (2)" in census["rejected"][reason]["first"]


def test_references_need_their_instances(root):
    write_refs(root, [reference()])
    (root / "refcoco" / "instances.json").unlink()
    with pytest.raises(DataError, match=r"instances\.json: references without their boxes"):
        read(root)


def test_a_release_in_parquet(root):
    info = {"file_name": "COCO_train2014_000000000009.jpg", "width": 8, "height": 6}
    raw = {"raw_anns": json.dumps({"bbox": [2.0, 3.0, 4.0, 3.0]}), "raw_image_info": json.dumps(info)}
    row = reference(split="test", bbox=[2.0, 3.0, 6.0, 6.0], **raw)
    pq.write_table(pa.Table.from_pylist([row]), root / "refcoco" / "test-00000.parquet")
    samples, census = read(root / "refcoco" / "test-00000.parquet", images=str(root))
    assert [sample.boxes[0].xyxy for sample in samples] == [(2.0, 3.0, 6.0, 6.0)] * 2
    assert census["files"] == {"refcoco/test-00000.parquet": "refcoco"} and samples[0].split == "test"


def test_a_release_in_json_with_the_box_in_the_record(root):
    path = write(root / "refcoco" / "refs.json", [reference(bbox=[2.0, 3.0, 4.0, 3.0])])
    samples, _ = read(path, images=str(root))
    assert samples[0].boxes[0].xyxy == (2.0, 3.0, 6.0, 6.0)


class Evil:
    """Would run a command when it is unpickled."""

    def __reduce__(self):
        return (os.system, ("touch ran",))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_is_read_and_never_run(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "refs(unc).p"
    value = [{"a": [1, 2.5, None, True, (1, 2, 3, 4), (), {}], "ü": "é", "big": 2**70, 3: -1}] * 2
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    assert read_pickled_data(path) == value
    path.write_bytes(pickle.dumps([reference(), Evil()], protocol=protocol))
    with pytest.raises(DataError, match="more than data, which is not run.*(GLOBAL|system)"):
        read_pickled_data(path)
    assert not (tmp_path / "ran").exists()
    path.write_bytes(pickle.dumps(value, protocol=protocol)[:-4])
    with pytest.raises(DataError, match="broken pickle"):
        read_pickled_data(path)


def test_regions_of_visual_genome(tmp_path):
    root = tmp_path / "vg"
    picture(root / "VG_100K" / "1.jpg")
    picture(root / "VG_100K_2" / "2.jpg")

    def region(number, image, **changes):
        return {"region_id": number, "image_id": image, "x": 0, "y": 3, "width": 4, "height": 3, "phrase": "a red dog",
                **changes}  # fmt: skip

    records = [
        {"id": 1, "regions": [region(10, 1), region(11, 1, width=0), region(12, 1, x=-4), region(13, 1, phrase=" ")]},
        {"id": 2, "regions": [region(20, 2)]},
        {"id": 3, "regions": [region(30, 3)]},
    ]
    samples, census = read(write(root / "region_descriptions.json", records), max_bad_fraction=0.9)
    assert [sample.id for sample in samples] == ["10", "20"] and census["found"] == 6
    assert said(samples[0]) == [
        ("user", "<image>Describe the region [0.000, 0.500, 0.500, 1.000]."),
        ("assistant", "a red dog"),
    ]
    assert samples[0].group == "vg/1" and samples[1].images[0].path.endswith("VG_100K_2/2.jpg")
    assert {reason: entry["count"] for reason, entry in census["rejected"].items()} == {
        "box without area": 1,
        "box outside of its picture": 1,
        "empty phrase": 1,
        "annotation without its picture": 1,
    }
