"""Benchmark files as questions: TSV lines, MME's and the other releases' folders, and what is wrong in them."""

import json

import pytest

from hfvla.data.samples.chat import ImageRef
from hfvla.data.samples.chat_pictures import load_reference
from hfvla.errors import DataError, HfvlaError
from hfvla.evaluation.benchmarks.catalog import BENCHMARKS, STAGES, chosen_benchmarks
from hfvla.evaluation.benchmarks.folders import find_benchmark, read_benchmark
from hfvla.evaluation.benchmarks.tsv import read_tsv
from hfvla.evaluation.benchmarks.wording import benchmark_sample, rotated
from hfvla.metrics.chat.tasks import choices_of

from .files import choice_row, colour_of, encoded, png, write_mme, write_pope, write_tsv

MMBENCH, TEXTVQA = BENCHMARKS["MMBench_DEV_EN_V11"], BENCHMARKS["TextVQA_VAL"]


def test_stage_lists_are_those_of_the_curriculum():
    assert [b.name for b in chosen_benchmarks(["stage1"])] == ["MME", "SEEDBench_IMG"]
    assert STAGES["stage3"] == (*STAGES["stage2"], "MMStar")
    assert set(STAGES["stage3"]) < set(STAGES["stage4"]) and len(STAGES["stage4"]) == 12
    assert [b.name for b in chosen_benchmarks(["mmbench", "MM-Bench_dev_en_v11", "mme"])] == [MMBENCH.name, "MME"]
    with pytest.raises(HfvlaError, match="no benchmark 'mmbensh'.*mmbench"):
        chosen_benchmarks(["mmbensh"])


def test_tsv_lines(tmp_path):
    path = tmp_path / "MMBench_DEV_EN_V11.tsv"
    write_tsv(path, [
        choice_row(7, "red", hint="Look.\nWell.", D=""),
        choice_row(1_000_007, "red", image="7", D=""),
        choice_row(8, "blue", **{"l2-category": "x"}),
    ])  # fmt: skip
    first, copy, last = read_tsv(path, MMBENCH)
    assert first.turns[0].text == (
        "Hint: Look.\nWell.\nQuestion: Which colour?\nA. red\nB. green\nC. blue\n"
        "Answer with the letter of the right choice."
    )
    assert [part.type for part in first.turns[0].content] == ["image", "text"]
    assert colour_of(first.images[0]) == "red" and colour_of(copy.images[0]) == "red"  # the other line's picture
    assert copy.group == first.group == "7" and copy.id == "1000007"
    assert choices_of(last) == ("red", "green", "blue", "white") and last.details["answer"] == "C"
    assert last.kind == "colour" and last.details["l2-category"] == "x"


def test_lists_of_answers_and_of_pictures(tmp_path):
    path = tmp_path / "TextVQA_VAL.tsv"
    images = str([encoded("red"), encoded("blue")])
    write_tsv(path, [{"index": 1, "question": "What?", "answer": "['a', \"b's\", 'a']", "image": images}])
    (sample,) = read_tsv(path, TEXTVQA)
    assert sample.references == ("a", "b's", "a") and [colour_of(i) for i in sample.images] == ["red", "blue"]
    assert sample.turns[0].text == "What?\nAnswer the question using a single word or phrase."


def test_pictures_where_the_text_names_them():
    refs = [ImageRef(data=png("red")), ImageRef(data=png("blue"))]
    sample = benchmark_sample(
        "1", "Is <image 1> like <image 2>?", refs, scorer="choice", choices=["yes", "no"], answer="A"
    )
    assert [part.type for part in sample.turns[0].content] == ["text", "image", "text", "image", "text"]
    swapped = benchmark_sample("1", "Is <image 2> like <image 1>?", refs, scorer="relaxed")
    assert [part.type for part in swapped.turns[0].content] == ["image", "image", "text"]
    assert swapped.turns[0].text.startswith("Is image 2 like image 1?")


def test_rotation_takes_the_answer_along():
    sample = benchmark_sample("1", "Which?", [], scorer="choice", choices=["w", "x", "y"], answer="B")
    for steps in range(3):
        moved = rotated(sample, steps)
        assert choices_of(moved)[ord(moved.details["answer"]) - 65] == "x"
    assert choices_of(rotated(sample, 1)) == ("y", "w", "x") and "C. x" in rotated(sample, 1).turns[0].text


def test_mme_folders(tmp_path):
    write_mme(tmp_path / "MME")
    place = find_benchmark(BENCHMARKS["MME"], tmp_path)
    samples = list(read_benchmark(BENCHMARKS["MME"], place))
    assert len(samples) == 8 and {sample.kind for sample in samples} == {"existence", "color"}
    assert samples[0].turns[0].text == "Is it red? Please answer yes or no."  # not asked for twice
    assert samples[0].group == samples[1].group != samples[2].group
    # The other layout of the release: pictures and questions in folders of their own.
    scene = tmp_path / "MME/scene"
    (scene / "images").mkdir(parents=True)
    (scene / "questions_answers_YN").mkdir()
    (scene / "images/a.png").write_bytes(png("blue"))
    (scene / "questions_answers_YN/a.txt").write_text("Is it blue?\tYes\nIs it red?\tNo\n")
    added = [s for s in read_benchmark(BENCHMARKS["MME"], place) if s.kind == "scene"]
    assert [s.references for s in added] == [("Yes",), ("No",)] and colour_of(added[0].images[0]) == "blue"
    assert added[0].turns[0].text.endswith("Please answer yes or no.")


def test_pope_lines(tmp_path):
    write_pope(tmp_path / "POPE")
    samples = list(read_benchmark(BENCHMARKS["POPE"], find_benchmark(BENCHMARKS["POPE"], tmp_path)))
    assert len(samples) == 6 and {s.kind for s in samples} == {"random", "popular"}
    assert load_reference(samples[0].images[0]).size == (16, 12)


def test_scienceqa_and_seed(tmp_path):
    science = tmp_path / "ScienceQA"
    (science / "images/val/3").mkdir(parents=True)
    (science / "images/val/3/image.png").write_bytes(png("red"))
    problem = {"question": "Which?", "choices": ["blue", "red"], "answer": 1, "hint": "", "image": "image.png"}
    problems = {"3": problem | {"split": "val", "subject": "natural science"}, "4": problem | {"split": "train"}}
    problems["5"] = problem | {"split": "val", "image": None}
    (science / "problems.json").write_text(json.dumps(problems))
    (one,) = read_benchmark(BENCHMARKS["ScienceQA_VAL"], find_benchmark(BENCHMARKS["ScienceQA_VAL"], tmp_path))
    assert one.details["answer"] == "B" and one.kind == "natural science" and colour_of(one.images[0]) == "red"
    seed = tmp_path / "SEED-Bench"
    (seed / "SEED-Bench-image").mkdir(parents=True)
    (seed / "SEED-Bench-image/x.png").write_bytes(png("blue"))
    question = {"question": "Which?", "choice_a": "red", "choice_b": "blue", "choice_c": "w", "choice_d": "g"}
    question |= {"answer": "B", "question_type_id": 1, "question_id": "101", "data_id": "x.png"}
    content = {"questions": [question | {"data_type": "image"}, question | {"data_type": "video"}]}
    (seed / "SEED-Bench.json").write_text(json.dumps(content | {"question_type": {"Scene Understanding": 1}}))
    (one,) = read_benchmark(BENCHMARKS["SEEDBench_IMG"], find_benchmark(BENCHMARKS["SEEDBench_IMG"], tmp_path))
    assert one.kind == "Scene Understanding" and colour_of(one.images[0]) == "blue"


def test_a_tsv_in_a_subfolder_is_found_and_others_are_not(tmp_path):
    (tmp_path / "LMUData").mkdir()
    write_tsv(tmp_path / "LMUData/MMStar.tsv", [choice_row(1, "red")])
    assert find_benchmark(BENCHMARKS["MMStar"], tmp_path).name == "MMStar.tsv"
    assert find_benchmark(BENCHMARKS["AI2D_TEST"], tmp_path) is None


@pytest.mark.parametrize(
    ("row", "match"),
    [
        (choice_row(1, "red", answer="E"), "none of the choices; got 'E'"),
        (choice_row(1, "red", B=""), "with a gap.*A, C, D"),
        (choice_row(1, "red", image="%%%" * 40), "no base64"),
        (choice_row(1, "red", image="99"), "another line's"),
        (choice_row(1, "red", image="", image_path="../secret.png"), "cannot be followed"),
        ({"index": 1, "question": "q"}, "lacks answer"),
    ],
)
def test_damaged_lines_are_named(tmp_path, row, match):
    path = tmp_path / "MMStar.tsv"
    write_tsv(path, [row])
    with pytest.raises(DataError, match=match) as error:
        list(read_tsv(path, BENCHMARKS["MMStar"]))
    assert "MMStar.tsv" in str(error.value)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "lacks index, question, answer; got 'an empty file'"),
        (b"index\tquestion\tanswer\n1\tcaf\xe9\tA\n", "cannot be read"),
        (b"index\tquestion\n1\tq\n", "lacks answer"),
    ],
)
def test_files_that_are_no_table_are_named(tmp_path, content, match):
    path = tmp_path / "MMStar.tsv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=match):
        list(read_tsv(path, BENCHMARKS["MMStar"]))


def test_a_byte_order_mark_is_no_letter(tmp_path):
    path = tmp_path / "MMStar.tsv"
    write_tsv(path, [choice_row(1, "red")])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [sample.id for sample in read_tsv(path, BENCHMARKS["MMStar"])] == ["1"]


def test_damaged_folders_are_named(tmp_path):
    write_mme(tmp_path / "MME")
    (tmp_path / "MME/color/0.txt").write_text("Is it red? Maybe\n")
    with pytest.raises(DataError, match="0.txt:1: no question and answer"):
        list(read_benchmark(BENCHMARKS["MME"], tmp_path / "MME"))
    write_pope(tmp_path / "POPE")
    (tmp_path / "POPE/val2014/red.jpg").unlink()
    with pytest.raises(DataError, match="not there.*red.jpg"):
        list(read_benchmark(BENCHMARKS["POPE"], tmp_path / "POPE"))
