"""Commands and evaluation on real clips with a tiny checkpoint: from the JSON to the CSV."""

import csv
import json
import logging
import re
import runpy
import sys

import pytest

from hfvla.cli import main
from hfvla.data.sources.road_videos import RoadVideosOptions, build_road_videos
from hfvla.errors import DataError
from hfvla.family import EvaluationContext
from hfvla.models.internvl_video_qa import FAMILY
from hfvla.worlds.road import RoadOptions
from hfvla.worlds.road.challenge import write_challenge


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Challenge files with clips; broken.json has one record of every kind of trouble."""
    folder = tmp_path_factory.mktemp("challenge")
    found = write_challenge(folder, RoadOptions(size=12), test_size=8)
    content = json.loads(found.test.read_text())
    records = content["data"]
    clip = (folder / records[1]["video_path"]).read_bytes()
    (folder / "torn.mp4").write_bytes(clip[: len(clip) // 2])
    records[1]["video_path"] = "torn.mp4"
    records[3]["choices"] = [f"{letter}. choice {letter}" for letter in "ABCDE"]
    records[4]["video_path"] = "../outside.mp4"
    records[6]["question"] = "  "
    (folder / "broken.json").write_text(json.dumps(content))
    return found


@pytest.fixture(scope="module")
def checkpoint(built, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    for part in built:
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def hfvla(capsys):
    logger = logging.getLogger("hfvla")
    before = logger.level, logger.propagate, list(logger.handlers)

    def call(*words):
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        return caught.value.code or 0, capsys.readouterr()

    yield call
    logger.setLevel(before[0])
    logger.propagate, logger.handlers = before[1], before[2]


def test_a_broken_test_file_becomes_a_submission(hfvla, files, checkpoint, tmp_path):
    target, data = tmp_path / "out/sub.csv", f"road_videos={files.test.parent / 'broken.json'}"
    words = ["predict", "--checkpoint", checkpoint, "--data", data, "--csv", target, "--json", "--device", "cpu"]
    code, printed = hfvla(*words, "--limit", "2")
    assert code == 0 and json.loads(printed.out)["questions"] == 2
    code, printed = hfvla(*words)
    summary = json.loads(printed.out)
    assert code == 0 and (summary["questions"], summary["answered"], summary["new"]) == (8, 4, 6)
    assert set(summary["reasons"]) == {
        "the video is truncated", "number of choices", "video path outside the data root", "empty question",
    }  # fmt: skip
    ids = [record["id"] for record in json.loads(files.test.read_text())["data"]]
    with target.open(newline="") as file:
        lines = {line["id"]: line["answer"] for line in csv.DictReader(file)}
    assert set(lines) == set(ids)
    assert [lines[row_id] == "" for row_id in ids] == [False, True, False, True, True, False, True, False]
    with target.with_suffix(".details.csv").open(newline="") as file:
        failures = {line["id"]: line["failure"] for line in csv.DictReader(file)}
    (checkpoint / "model.safetensors").touch()  # trained again in the same folder
    code, printed = hfvla(*words)
    assert code == 2 and "begun with other settings" in printed.err and "weights" in printed.err
    assert "torn.mp4" in failures[ids[1]] and "expected 2 to 4" in failures[ids[3]] and not failures[ids[0]]


def test_one_question(hfvla, files, checkpoint):
    record = json.loads(files.test.read_text())["data"][0]
    clip = files.test.parent / record["video_path"]
    words = ["predict", "--checkpoint", checkpoint, "--question", record["question"], "--json"]
    code, printed = hfvla(*words, "--video", clip, "--choices", "Red | Green|Blue")
    answer = json.loads(printed.out)
    assert code == 0 and answer["answer"] in {"Red", "Green", "Blue"}
    assert set(answer["probabilities"]) == {"A", "B", "C"}
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    code, printed = hfvla(*words, "--video", clip, "--choices", "Red")
    assert code == 2 and "--choices: how many choices; got 1; expected 2 to 4" in printed.err
    code, printed = hfvla(*words, "--video", "nowhere.mp4", "--choices", "a|b")
    assert code == 2 and "no such video" in printed.err


def test_a_submission_of_a_model_that_answers_by_words(hfvla, files, model, processor, tmp_path):
    model.config.answer_by = "words"
    for part in (model, processor):
        part.save_pretrained(tmp_path / "words")
    target, data = tmp_path / "sub.csv", f"road_videos={files.test}"
    words = ["predict", "--checkpoint", tmp_path / "words", "--data", data, "--csv", target, "--json"]
    code, _ = hfvla(*words, "--device", "cpu")
    with target.open(newline="") as file:
        lines = {line["id"]: line["answer"] for line in csv.DictReader(file)}
    asked = json.loads(files.test.read_text())["data"]
    expected = {}
    for record in asked:
        choices = [choice.split(". ", 1)[1] for choice in record["choices"]]
        clip = str(files.test.parent / record["video_path"])
        expected[record["id"]] = model.answer(processor, clip, record["question"], choices).letter
    assert code == 0 and lines == expected
    model.config.answer_by = "letters"
    model.config.save_pretrained(tmp_path / "words")
    code, printed = hfvla(*words, "--device", "cpu")
    assert code == 2 and "begun with other settings" in printed.err and "answer_by" in printed.err


def test_evaluation_of_real_clips(shared_model, processor, files):
    test = build_road_videos(RoadVideosOptions(path=str(files.test_labelled))).dataset
    train = build_road_videos(RoadVideosOptions(path=str(files.train))).dataset
    context = EvaluationContext(train_rows=train, bootstrap_samples=10, max_generate=2, batch_size=4)
    result = FAMILY.load("evaluate")(shared_model, processor, test, context)
    assert result.metrics["n"] == 8 and result.metrics["failures"] == 0
    assert {"accuracy_with_support", "accuracy_without_support", "position_bias", "ece", "latency_p95_s"} <= set(
        result.metrics
    )
    assert set(result.baselines) == {"majority_letter", "longest_choice", "question_only", "single_frame"}
    # The probabilities of a row are those of the model asked alone.
    row, alone = result.rows[0], test[0]
    answer = shared_model.answer(processor, alone["video"], alone["question"], alone["choices"])
    assert list(row["probabilities"].values()) == pytest.approx(list(answer.probabilities), abs=1e-5)


def test_a_clip_that_breaks_after_reading_is_counted(shared_model, processor, files, tmp_path):
    test = build_road_videos(RoadVideosOptions(path=str(files.test_labelled))).dataset
    torn = tmp_path / "torn.mp4"
    with open(test[0]["video"], "rb") as file:
        torn.write_bytes(file.read(5000))
    rows = test.map(lambda row, index: {"video": str(torn)} if index == 2 else {}, with_indices=True)
    context = EvaluationContext(bootstrap_samples=0, max_generate=0, ablations=False, max_bad_fraction=0.2)
    result = FAMILY.load("evaluate")(shared_model, processor, rows, context)
    assert result.metrics["failures"] == 1 and "torn.mp4" in result.rows[2]["failure"]
    with pytest.raises(DataError, match=r"1 of 8 questions cannot be answered; first: .*torn.mp4"):
        FAMILY.load("evaluate")(shared_model, processor, rows, EvaluationContext(ablations=False))


def test_lora_targets_of_a_checkpoint(hfvla, checkpoint):
    code, printed = hfvla("lora-targets", checkpoint, "--target", "language", "--target", r"re:.*\.q_proj", "--json")
    found = json.loads(printed.out)
    assert code == 0
    by_target = {row["target"]: row for row in found["targets"]}
    assert by_target["language"]["by_group"] == "language 14"  # two layers of q k v o gate up down; not the tied head
    assert by_target[r"re:.*\.q_proj"]["by_group"] == "vision 2, language 2"  # the trap of a bare q_proj
    assert len(found["names"]["language"]) == 14
    kinds = {row["layers"]: row["count"] for row in found["layers"] if row["group"] == "projector"}
    assert kinds == {
        "backbone.model.multi_modal_projector.linear_1": 1,
        "backbone.model.multi_modal_projector.linear_2": 1,
    }
    code, printed = hfvla("lora-targets", checkpoint, "--target", "re:.*qkv_proj")
    assert code == 2 and "qkv_proj" in printed.err and "self_attn" in printed.err


def test_the_example_answers_on_a_clip(repository, checkpoint, files, monkeypatch, capsys):
    script = repository / "examples/internvl_video_qa.py"
    clip = next(files.test.parent.glob("test/videos/*.mp4"))
    words = ["--checkpoint", str(checkpoint), "--video", str(clip), "--question", "Which?", "--choices", "Red|Green"]
    monkeypatch.setattr(sys, "argv", [str(script), *words])
    runpy.run_path(str(script))["main"]()
    printed = capsys.readouterr().out
    assert re.search(r"^  -> [AB]\. (Red|Green)$", printed, re.MULTILINE) and "3 frames" in printed
    assert len(script.read_text().splitlines()) < 80
