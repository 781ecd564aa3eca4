"""A folder with all of them: what each file is taken for, what is not recognised, splits, cache, streams."""

import json
import logging
import os

import pytest
from datasets import IterableDataset

from hfvla.data.samples.chat import ChatSample, chat_features
from hfvla.data.sources.vision_language import SOURCES, VisionLanguageOptions
from hfvla.data.sources.vision_language.build import build_vision_language
from hfvla.data.sources.vision_language.formats import FORMATS
from hfvla.data.sources.vision_language.options import FormatName
from hfvla.errors import DataError
from hfvla.family import resolve

from .sets import picture, read, write, write_coco
from .test_questions import AOKVQA, TEXTVQA, write_vqa
from .test_shards import pairs, write_tar


@pytest.fixture
def root(tmp_path):
    """The folder that EmberVLM's first stage reads, with a few records of each."""
    root = tmp_path / "base_vlm"
    write_coco(root / "coco")
    write_coco(root / "coco", numbers=(30, 31), split="val")
    write_vqa(root / "vqa_v2")
    write(root / "aokvqa" / "aokvqa_v1p0_train.json", [AOKVQA])
    picture(root / "textvqa" / "train_images" / f"{TEXTVQA['image_id']}.jpg")
    write(root / "textvqa" / "TextVQA_0.5.1_train.json", {"dataset_name": "textvqa", "data": [TEXTVQA]})
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
    write(root / "llava_instruct_150k.json", [{"id": "1", "image": "000000000009.jpg", "conversations": turns}])
    write_tar(root / "cc3m" / "00000.tar", pairs(0, 1))
    write(root / "notes" / "config.json", {"learning_rate": 1})
    (root / "README").write_text("what lies here")
    (root / "broken.json").write_text('[{"a": 1},')
    (root / ".hidden.json").write_text("[]")
    return root


def test_every_file_is_named_with_what_it_was_taken_for(root, caplog):
    with caplog.at_level(logging.INFO, logger="hfvla"):
        samples, census = read(root, split="train")
    assert census["files"] == {
        "aokvqa/aokvqa_v1p0_train.json": "aokvqa",
        "cc3m/00000.tar": "webdataset",
        "coco/annotations/captions_train2017.json": "coco_captions",
        "coco/annotations/captions_val2017.json": "coco_captions",
        "coco/annotations/instances_train2017.json": "coco_instances",
        "coco/annotations/instances_val2017.json": "coco_instances",
        "llava_instruct_150k.json": "llava",
        "textvqa/TextVQA_0.5.1_train.json": "textvqa",
        "vqa_v2/v2_OpenEnded_mscoco_train2014_questions.json": "vqa",
        "vqa_v2/v2_mscoco_train2014_annotations.json": "vqa",
    }
    assert set(census["unknown"]) == {"README", "broken.json", "notes/config.json"} and census["hidden"] == 1
    assert "broken JSON" in census["unknown"]["broken.json"]
    assert census["samples"] == {
        **{"aokvqa": 1, "cc3m": 2, "coco_captions": 4, "coco_instances": 1},
        **{"llava_instruct_150k": 1, "textvqa": 1, "vqav2": 2},
    }
    assert {sample.split for sample in samples} == {"train", ""} and not census["rejected"]
    assert set(census["files_left_out"].values()) == {"val"} and len(census["files_left_out"]) == 2
    for name, kind in census["files"].items():
        assert f"{name}: taken for {kind}" in caplog.text
    for name in census["unknown"]:
        assert f"{name}: not recognised, and not read" in caplog.text
    assert "records usable" in caplog.text and "samples of vqav2" in caplog.text


def test_a_picture_of_several_sets_is_one_group(root):
    samples, _ = read(root, split="train")
    of_nine = {sample.source for sample in samples if sample.group == "coco/9"}
    assert of_nine == {"coco_captions", "coco_instances", "vqav2", "aokvqa", "llava_instruct_150k"}


def test_a_source_by_each_name_reads_the_same(root, tmp_path):
    assert set(SOURCES) == {"vision_language", "folder", "hub"}
    rows = []
    for name in ("vision_language", "folder"):
        options = resolve(SOURCES[name].options)(path=str(root), cache_dir=str(tmp_path / name))
        data = resolve(SOURCES[name].build)(options, seed=1)
        assert data.dataset.features == chat_features()
        rows.append(data.dataset.to_list())
    assert rows[0] == rows[1] and len(rows[0]) == 12


def test_names_of_formats_are_those_of_recipes():
    assert {one.name for one in FORMATS} | {"auto"} == set(FormatName.__args__)


def test_rows_are_kept_and_found_again_until_something_changes(root, tmp_path):
    cache = tmp_path / "cache"

    def tables():
        return {path.name for path in cache.iterdir() if not path.name.startswith(".")}

    first, _ = read(root, split="train", cache_dir=str(cache))
    kept = tables()
    again, census = read(root, split="train", cache_dir=str(cache))
    assert again == first and tables() == kept and census["samples"]["vqav2"] == 2
    picture(root / "coco" / "train2017" / "000000000777.jpg")  # may be what an annotation lacked
    read(root, split="train", cache_dir=str(cache))
    assert len(tables()) == 2
    path = root / "llava_instruct_150k.json"
    value = json.loads(path.read_text())
    value[0]["conversations"][1]["value"] = "A cat."
    os.utime(write(path, value), ns=(1, 1))
    samples, _ = read(root, split="train", cache_dir=str(cache))
    assert len(tables()) == 3 and any(sample.turns[-1].text == "A cat." for sample in samples)
    read(root, split="train", cache_dir=str(cache), box_text="pixels")
    assert len(tables()) == 4


def test_what_fails_leaves_no_table_behind(root, tmp_path):
    cache = tmp_path / "cache"
    (root / "coco" / "train2017" / "000000000025.jpg").unlink()
    with pytest.raises(DataError, match="annotation without its picture"):
        read(root, split="train", cache_dir=str(cache))
    assert not list(cache.iterdir())


def test_a_stream_gives_the_rows_of_the_table(root):
    rows = build_vision_language(VisionLanguageOptions(path=str(root), streaming=True))
    assert isinstance(rows.dataset, IterableDataset) and rows.census["files"]["cc3m/00000.tar"] == "webdataset"
    streamed = [ChatSample.from_row(row) for row in rows.dataset]
    assert [one.id for one in streamed] == [one.id for one in read(root, split="train")[0]]
    parts = [rows.dataset.shard(2, index) for index in range(2)]
    assert sorted(row["id"] for part in parts for row in part) == sorted(one.id for one in streamed)


def test_a_stream_of_bad_records_ends_with_their_number(root):
    (root / "coco" / "train2017" / "000000000025.jpg").unlink()
    rows = build_vision_language(VisionLanguageOptions(path=str(root), streaming=True)).dataset
    with pytest.raises(DataError, match="annotation without its picture"):
        list(rows)


def test_links_in_the_folder_that_lead_out_are_named(root, tmp_path):
    other = write_coco(tmp_path / "other", numbers=(50, 51))
    (root / "more").symlink_to(other)
    (root / "loop").symlink_to(root)
    (root / "dead.json").symlink_to(tmp_path / "nothing.json")
    samples, census = read(root, split="train")
    assert len(samples) == 12 and census["passed_over"]["count"] == 3
    samples, census = read(root, split="train", follow_links=True)
    assert len(samples) == 12 + 5 and census["passed_over"]["count"] == 2


def test_one_format_for_all_files(root):
    with pytest.raises(DataError, match=r"is not of the format coco_captions|no record|unusable"):
        read(root / "llava_instruct_150k.json", format="coco_captions")
