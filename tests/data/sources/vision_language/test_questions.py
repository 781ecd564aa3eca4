"""VQAv2, OK-VQA, A-OKVQA, GQA, OCR-VQA, TextVQA and TextCaps, in the files that their makers publish."""

import json

import pytest

from hfvla.errors import DataError

from .sets import SHARED, picture, read, said, write

EXCERPTS = pytest.mark.skipif(SHARED is None or not (SHARED / "textvqa").is_dir(), reason="no real excerpts here")


def ten(*answers):
    return [
        {"answer": answer, "answer_confidence": "yes", "answer_id": number} for number, answer in enumerate(answers, 1)
    ]


def write_vqa(root, split="train", answered=True):
    """Write two questions of VQAv2 and their annotations."""
    for number in (9, 25):
        picture(root / f"{split}2014" / f"COCO_{split}2014_{number:012d}.jpg")
    asked = [
        {"image_id": 9, "question": "How many cookies?", "question_id": 9000},
        {"image_id": 25, "question": "Is it day?", "question_id": 25000},
    ]
    head = {
        "info": {"version": "2.0"},
        "license": {"name": "CC"},
        "data_subtype": f"{split}2014",
        "data_type": "mscoco",
    }
    name = f"v2_OpenEnded_mscoco_{split}2014_questions.json"
    write(root / name, {**head, "task_type": "Open-Ended", "questions": asked})
    if answered:
        given = [
            {"question_type": "is it", "multiple_choice_answer": "yes", "answers": ten(*["yes"] * 10), "image_id": 25,
             "answer_type": "yes/no", "question_id": 25000},
            {"question_type": "how many", "multiple_choice_answer": "2", "answers": ten("2", "two", *["2"] * 8),
             "image_id": 9, "answer_type": "number", "question_id": 9000},
        ]  # fmt: skip
        write(root / f"v2_mscoco_{split}2014_annotations.json", {**head, "annotations": given})
    return root / name


def test_questions_of_vqa_are_joined_with_their_answers(tmp_path):
    write_vqa(tmp_path / "vqa")
    samples, census = read(tmp_path / "vqa", split="train")
    first, second = samples
    assert said(first) == [("user", "<image>How many cookies?"), ("assistant", "2")]
    assert first.references == ("2", "two", *["2"] * 8)
    assert (first.id, first.kind, first.source, first.split, first.group) == (
        "9000", "how many", "vqav2", "train", "coco/9")  # fmt: skip
    assert first.details == {"answer_type": "number"} and said(second)[1] == ("assistant", "yes")
    assert set(census["files"].values()) == {"vqa"} and len(census["files"]) == 2


def test_the_answers_beside_one_question_file_are_found(tmp_path):
    samples, census = read(write_vqa(tmp_path / "vqa"))
    assert len(samples) == 2 and len(census["files"]) == 2


def test_questions_without_answers_are_no_samples(tmp_path):
    path = write_vqa(tmp_path / "vqa", answered=False)
    with pytest.raises(DataError, match="2 of 2 .*question without its answer.*question_id 9000"):
        read(path)


def test_validation_questions_stay_out_of_training(tmp_path):
    write_vqa(tmp_path / "vqa")
    write_vqa(tmp_path / "vqa", split="val")
    samples, census = read(tmp_path / "vqa", split="train")
    assert len(samples) == 2 and {sample.split for sample in samples} == {"train"}
    assert census["files_left_out"] == {"v2_OpenEnded_mscoco_val2014_questions.json": "val"}
    assert len(read(tmp_path / "vqa", split="val")[0]) == 2


def test_ok_vqa_takes_the_answer_of_most_and_lies_beside_vqa(tmp_path):
    root = tmp_path / "both"
    write_vqa(root)
    head = {"data_subtype": "train2014", "data_type": "mscoco"}
    asked = [{"image_id": 25, "question": "What sport?", "question_id": 255}]
    write(root / "OpenEnded_mscoco_train2014_questions.json", {**head, "questions": asked})
    answers = [{**one, "raw_answer": one["answer"]} for one in ten("race", "Racing", "racing")]
    given = [{"image_id": 25, "answer_type": "other", "question_type": "four", "answers": answers, "question_id": 255,
              "confidence": 3}]  # fmt: skip
    write(root / "mscoco_train2014_annotations.json", {"annotations": given, **head})
    samples, census = read(root, split="train")
    assert census["samples"] == {"vqav2": 2, "okvqa": 1}
    sample = next(one for one in samples if one.source == "okvqa")
    assert said(sample)[1] == ("assistant", "Racing") and sample.references == ("race", "Racing", "racing")
    assert sample.kind == "what sport" and sample.details["topic"] == "four"


def test_a_question_id_that_stands_twice_is_counted(tmp_path):
    path = write_vqa(tmp_path / "vqa")
    value = json.loads(path.read_text())
    value["questions"].append(value["questions"][0])
    samples, census = read(write(path, value), max_bad_fraction=0.5)
    assert len(samples) == 2 and census["rejected"]["duplicate id"]["count"] == 1


AOKVQA = {
    "split": "train",
    "image_id": 9,
    "question_id": "q1",
    "question": "What is in the mouth?",
    "choices": ["toothpick", "food", "stick", "cigarette"],
    "correct_choice_idx": 3,
    "direct_answers": ["cigarette"] * 9 + ["smoke"],
    "difficult_direct_answer": False,
    "rationales": ["He's smoking", "It is lit.", "The man is smoking."],
}


@pytest.fixture
def coco(tmp_path):
    picture(tmp_path / "set" / "train2017" / f"{9:012d}.jpg")
    return tmp_path / "set"


def test_aokvqa_has_answers_and_rationales(coco):
    path = write(coco / "aokvqa_v1p0_train.json", [AOKVQA])
    (sample,), _ = read(path)
    assert said(sample) == [("user", "<image>What is in the mouth?"), ("assistant", "cigarette")]
    assert sample.references == tuple(AOKVQA["direct_answers"]) and sample.kind == "what is"
    assert json.loads(sample.details["rationales"]) == AOKVQA["rationales"]
    assert json.loads(sample.details["choices"]) == AOKVQA["choices"]
    (sample,), _ = read(path, write_rationales=True, choices=True)
    assert said(sample) == [
        ("user", "<image>What is in the mouth?\nChoices: A. toothpick; B. food; C. stick; D. cigarette."),
        ("assistant", "He's smoking. The answer is cigarette."),
    ]
    assert sample.details["answer"] == "cigarette"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"correct_choice_idx": 4}, "correct choice that is none"),
        ({"correct_choice_idx": None, "direct_answers": None}, "question without its answer"),
        ({"question": ""}, "empty question"),
        ({"image_id": 7}, "annotation without its picture"),
        ({"image_id": float("nan")}, "image_id is no number"),
        ({"choices": ["a", 3]}, "choices is not text"),
    ],
)
def test_a_question_that_cannot_be_used_is_counted(coco, changes, reason):
    path = write(coco / "a.json", [AOKVQA, {**AOKVQA, "question_id": "q2", **changes}])
    samples, census = read(path, max_bad_fraction=0.5)
    assert len(samples) == 1 and list(census["rejected"]) == [reason]
    assert "a.json:1 (q2)" in census["rejected"][reason]["first"]


def test_gqa(tmp_path):
    picture(tmp_path / "gqa" / "images" / "2386621.jpg")
    question = {
        "semantic": [{"operation": "select", "dependencies": [], "argument": "scene"}],
        "imageId": "2386621",
        "question": "Is the sky dark?",
        "answer": "yes",
        "fullAnswer": "Yes, the sky is dark.",
        "isBalanced": True,
        "types": {"detailed": "verifyAttr", "semantic": "attr", "structural": "verify"},
    }
    root = tmp_path / "gqa"
    write(root / "questions1.2" / "train_balanced_questions.json", {"02930152": question})
    write(root / "questions1.2" / "testdev_balanced_questions.json", {"20000000": question})
    (sample,), census = read(root, split="train")
    assert said(sample) == [("user", "<image>Is the sky dark?"), ("assistant", "yes")]
    assert (sample.id, sample.kind, sample.group, sample.split) == ("02930152", "verify", "vg/2386621", "train")
    assert sample.details["full_answer"] == "Yes, the sky is dark."
    assert census["files_left_out"] == {"questions1.2/testdev_balanced_questions.json": "testdev"}
    assert read(root, split="test")[0][0].split == "testdev"


def test_ocr_vqa_asks_each_question_and_keeps_its_splits(tmp_path):
    picture(tmp_path / "ocr" / "images" / "761183272.jpg")
    book = {
        "imageURL": "http://localhost/images/I/51.jpg",
        "questions": ["Who wrote this book?", "What is the genre?"],
        "answers": ["Linda Leavell", "Biographies"],
        "title": "Holding On",
        "authorName": "Linda Leavell",
        "genre": "Biographies",
        "split": 1,
    }
    other = {**book, "split": 3}
    broken = {**book, "answers": ["one"]}
    path = write(
        tmp_path / "ocr" / "dataset.json", {"761183272": book, "2": other, "3": broken, "4": {**book, "split": 9}}
    )
    samples, census = read(path, split="train", max_bad_fraction=0.9)
    assert [sample.id for sample in samples] == ["761183272-0", "761183272-1"]
    assert said(samples[0]) == [("user", "<image>Who wrote this book?"), ("assistant", "Linda Leavell")]
    assert samples[0].group == samples[1].group and census["left_out"] == {"test": 1}
    assert set(census["rejected"]) == {"questions and answers differ in number", "unknown split"}


TEXTVQA = {
    "question": "what is the brand of phone?",
    "image_id": "0054c91397f2fe05",
    "image_width": 8,
    "image_height": 6,
    "answers": ["nokia"] * 4 + ["toshiba"] + ["nokia"] * 5,
    "question_id": 0,
    "set_name": "train",
}


def test_textvqa_and_textcaps_share_their_pictures(tmp_path):
    root = tmp_path / "textvqa"
    picture(root / "train_images" / "0054c91397f2fe05.jpg")
    head = {"dataset_type": "train", "dataset_version": "0.5.1"}
    write(root / "TextVQA_0.5.1_train.json", {**head, "dataset_name": "textvqa", "data": [TEXTVQA]})
    caption = {"image_id": TEXTVQA["image_id"], "set_name": "train", "image_path": "train/0054c91397f2fe05.jpg",
               "caption_id": 1, "caption_str": "A phone.", "reference_strs": ["A phone.", "A Nokia."]}  # fmt: skip
    write(root / "TextCaps_0.1_train.json", {**head, "dataset_name": "textcaps", "data": [caption]})
    write(root / "TextVQA_0.5.1_val.json", {**head, "data": [{**TEXTVQA, "set_name": "val", "question_id": 3}]})
    samples, census = read(root, split="train")
    assert census["samples"] == {"textcaps": 1, "textvqa": 1} and census["left_out"] == {"val": 1}
    captioned, asked = samples
    assert said(captioned)[1] == ("assistant", "A phone.") and captioned.references == ("A phone.", "A Nokia.")
    assert said(asked) == [("user", "<image>what is the brand of phone?"), ("assistant", "nokia")]
    assert captioned.images == asked.images and captioned.group == asked.group == "openimages/0054c91397f2fe05"
    assert asked.references.count("nokia") == 9


@EXCERPTS
def test_the_real_excerpts_of_textvqa_and_textcaps(tmp_path):
    for path in (SHARED / "textvqa").glob("*.json"):
        for record in json.loads(path.read_text())["data"]:
            place = tmp_path / "train_images" / f"{record['image_id']}.jpg"
            if not place.exists():
                picture(place)
        (tmp_path / path.name).symlink_to(path)
    samples, census = read(tmp_path, split="all", follow_links=True, check_images="exists")
    assert census["samples"] == {"textvqa": 200, "textcaps": 200} and census["found"] == 400
    assert not census["rejected"] and {sample.split for sample in samples} == {"train", "val"}
    assert len(read(tmp_path, split="train", follow_links=True, check_images="exists")[0]) == 200


@EXCERPTS
def test_the_real_excerpt_of_aokvqa(tmp_path):
    for name in ("val", "test"):
        path = SHARED / "aokvqa" / f"aokvqa_v1p0_{name}.json"
        for record in json.loads(path.read_text()):
            picture(tmp_path / f"{name}2017" / f"{record['image_id']:012d}.jpg")
        (tmp_path / path.name).symlink_to(path)
    samples, census = read(tmp_path, split="val", follow_links=True, check_images="exists")
    assert len(samples) == 200 and census["left_out"] == {"test": 200} and not census["rejected"]
    assert all(
        len(sample.references) == 10 and len(json.loads(sample.details["rationales"])) == 3 for sample in samples
    )
    with pytest.raises(DataError, match="200 of 200 records are unusable .*question without its answer"):
        read(tmp_path, split="test", follow_links=True, check_images="exists")
